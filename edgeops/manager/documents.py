"""Publishing roots, sites and floors while the manager runs: believed by the rules of the wire, kept, used, and sent to devices.

A document counts once its file is written; all else follows from that file, now or after the next start, its entry in the audit log
included. Floors rise only after a rollout has finished: above what finished rollouts have brought, or above what a device is still
ordered to run, none is published.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from edgeops.rollout.state import Paused
from edgeops.store import audit, rows
from edgeops.store.tables import devices, marks, releases, rollouts, wishes
from edgeops.wire import envelope
from edgeops.wire.errors import Misuse
from edgeops.wire.root import Root
from edgeops.wire.rotation import read_root
from edgeops.wire.trust import accept_floor, accept_site, advance_root, current_root

from . import streams
from .authority import read_authority
from .conduct import apply, load
from .desire import MOST_TOGETHER, hand_out, reissue
from .devices import presence
from .files import write_whole
from .hub import Hub
from .papers import Document, Papers, assemble
from .settings import load as load_settings
from .site import check_site, read_floor

KINDS = ("root", "site", "floor")
UNFINISHED = ("pending", "running", "paused", "halted", "reverting")
AHEAD_S = 86_400
LATER = "found-later"  # who published it the log was not told in time; who signed it, the document says
SETTLED = "documents-settled"
AT_ONCE = 200


def publish(hub: Hub, who: str, kind: str, sealed: bytes) -> dict[str, Any]:
    """Take the next root, site or floor, use it, and send it to every device that is there.

    Raises Rejected where devices would, Misuse (unknown-document, online-key, unknown-ca, site-stale, root-ahead, key-returned,
    floor-*). Publishing the current document again changes nothing.
    """
    if kind not in KINDS:
        raise Misuse("unknown-document", f"there is no document {kind[:64]!r} to publish; known: {', '.join(KINDS)}")
    # Alone among writers: no rollout may begin between the look at all rollouts and the floor it would lie below.
    with hub.store.write() as tx:
        before = hub.papers
        current = sealed in (before.roots[-1], before.site, before.floor)
        _log_missing(hub, tx, who if current else LATER)
        if not current:
            after = ACCEPT[kind](hub, tx, before, sealed)
            version = version_of(after, kind)
            _log(hub, tx, who, kind, version, sealed)
            write_whole(hub.layout.document(f"{kind}-{version}"), sealed)
            hub.shelf.papers = after
    spread(hub)
    settle(hub)
    return status(hub) | {"kind": kind, "version": version_of(hub.papers, kind)}


def log_missing(hub: Hub) -> None:
    """At start: log the publishing of what is current, where the manager died or its disk was full before it could."""
    with hub.store.write() as tx:
        _log_missing(hub, tx, LATER)


def _log_missing(hub: Hub, tx: Connection, who: str) -> None:
    papers = hub.papers
    # The first root and site are the setup's own, whose entry says so.
    for kind, sealed, least in (("root", papers.roots[-1], 2), ("site", papers.site, 2), ("floor", papers.floor, 1)):
        version = version_of(papers, kind)
        newest = audit.page(tx, 1, audit.Wanted(action=f"{kind}-publish"))
        if sealed and version >= least and (not newest or newest[0]["subject"] != f"{kind} {version}"):
            _log(hub, tx, who, kind, version, sealed)


def _log(hub: Hub, tx: Connection, who: str, kind: str, version: int, sealed: bytes) -> None:
    signed = ", ".join(sorted(envelope.signers_of(sealed, kind)))
    audit.write(tx, hub.now(), who, f"{kind}-publish", f"{kind} {version}", f"signed by {signed}")


def _root(hub: Hub, _tx: Connection, before: Papers, sealed: bytes) -> Papers:
    trust = advance_root(before.trust, sealed)
    _check_root(hub, before, current_root(trust))
    return assemble(hub.layout, hub.settings, trust, (*before.roots, sealed), before.site, before.floor, hub.now())


def _check_root(hub: Hub, before: Papers, root: Root) -> None:
    """Raise Misuse("root-ahead" | "key-returned") for what devices cannot see in a root, or could not get out of again."""
    if root.issued > hub.now() + AHEAD_S:
        text = f"root {root.version} is dated {root.issued - hub.now()} s ahead of this manager's clock; devices that take it would"
        raise Misuse("root-ahead", f"{text} refuse the time from then on. Set the clock where it is made right, propose it anew")
    earlier = [read_root(data) for data in before.roots]
    for role in ("site", "release"):
        joined = set(root.roles[role].keys) - set(before.root.roles[role].keys)
        again = sorted(joined & {name for one in earlier for name in one.roles[role].keys})
        if again:
            text = f"key {again[0]} was taken from role {role} before; old documents of it would be believed again"
            raise Misuse("key-returned", f"{text}; make a new key")


def _site(hub: Hub, _tx: Connection, before: Papers, sealed: bytes) -> Papers:
    # Against the settings as they will be at the next start: that is what devices will meet.
    settings = load_settings(hub.layout.settings)
    trust, site = accept_site(before.trust, sealed)
    check_site(replace(settings, https_port=settings.https_port or hub.settings.https_port), sealed)
    authority = read_authority(hub.layout, site, hub.now(), settings.certificate_days)
    return replace(before, trust=trust, site=sealed, authority=authority)


def _floor(hub: Hub, tx: Connection, before: Papers, sealed: bytes) -> Papers:
    trust, floors = accept_floor(before.trust, sealed), read_floor(sealed).floors
    lost = sorted(model for model, least in before.trust.floors.items() if floors.get(model, 0) < least)
    if lost:
        text = f"the new floor says less of {', '.join(lost)} than the old one; a new device knows the newest document only"
        raise Misuse("floor-lowered", text)
    for model in sorted(floors):
        if floors[model] > before.trust.floors.get(model, 0):
            check_floor(tx, model, floors[model])
    return replace(before, trust=trust, floor=sealed)


ACCEPT: Mapping[str, Callable[[Hub, Connection, Papers, bytes], Papers]] = {"root": _root, "site": _site, "floor": _floor}


def check_floor(tx: Connection, model: str, least: int) -> None:
    """Raise Misuse("floor-unproven" | "floor-busy" | "floor-in-use") unless all that is ordered is at or above `least` for good."""
    found = [load(tx, row["id"]).rollout for row in rows.find(tx, rollouts)]
    plans = [one for one in found if one.plan.model == model]
    brought = max((one.plan.version for one in plans if one.status == "finished"), default=0)
    if brought < least:
        text = f"no finished rollout has brought {model}:{least} or newer (the newest: {brought or 'none'}); finish one first"
        raise Misuse("floor-unproven", text)
    for one in plans:
        if one.status in UNFINISHED and one.plan.version < least:
            text = f"rollout {one.plan.rollout_id} of {model}:{one.plan.version} is {one.status}; wait for it or abort it first"
            raise Misuse("floor-busy", text)
    below = {row["digest"] for row in rows.find(tx, releases, model=model) if row["version"] < least}
    behind = sorted(row["device"] for row in rows.find(tx, wishes) if row["wish"].get("release") in below)
    enrolled = {row["id"] for row in rows.find(tx, devices, status="enrolled")}
    behind = [name for name in dict.fromkeys(behind) if name in enrolled]
    if behind:
        text = f"{len(behind)} devices, such as {behind[0]}, are ordered to run {model} below {least} and would refuse their orders"
        raise Misuse("floor-in-use", f"{text}; bring them a newer version first, or take the model off them")


def version_of(papers: Papers, kind: str) -> int:
    """The current version of a kind; a floor there is none of yet has version 0."""
    return papers.root.version if kind == "root" else papers.trust.site_version if kind == "site" else papers.trust.floor_version


def spread(hub: Hub) -> None:
    """Send what they lack to the devices that are there; the others ask when they come."""
    now = hub.now()
    with hub.store.read() as tx:
        names = [row["id"] for row in rows.find(tx, devices, status="enrolled") if presence(row, now) == "online"]
    for at in range(0, len(names), AT_ONCE):
        with hub.store.write() as tx:
            for name in names[at : at + AT_ONCE]:
                if row := rows.get(tx, devices, id=name):
                    hand_out(hub, tx, row)


def settle(hub: Hub) -> None:
    """Make all that is signed fit the current root: streams, orders, rollouts. Done once a root, however often it is begun."""
    version = hub.root.version
    with hub.store.read() as tx:
        mark = rows.get(tx, marks, name=SETTLED)
        names = [row["id"] for row in rows.find(tx, devices, status="enrolled")]
    if version == (mark["value"] if mark else 1):
        return
    with hub.store.write() as tx:
        streams.reseal(hub, tx)
        _pause_unsigned(hub, tx)
    for at in range(0, len(names), AT_ONCE):
        with hub.store.write() as tx:
            for name in names[at : at + AT_ONCE]:
                reissue(hub, tx, name)
    with hub.store.write() as tx:
        rows.put(tx, marks, name=SETTLED, value=version)


def _pause_unsigned(hub: Hub, tx: Connection) -> None:
    """Hold rollouts of releases that devices would refuse now."""
    for row in rows.find(tx, rollouts, status="running"):
        release = rows.get(tx, releases, digest=load(tx, row["id"]).rollout.plan.release)
        if release is not None and not hub.papers.is_believed("release", release["envelope"]):
            apply(hub, tx, row["id"], Paused(hub.now(), "documents"))


def after(hub: Hub, kind: str, version: int) -> list[Document]:
    """The documents of a kind newer than `version`, as many as fit a bundle; raises Misuse("unknown-document")."""
    if kind not in KINDS:
        raise Misuse("unknown-document", f"there is no document {kind[:64]!r}; known: {', '.join(KINDS)}")
    papers = hub.papers
    if kind == "root":
        return [("root", data) for data in papers.roots[min(version, len(papers.roots)) :][:MOST_TOGETHER]]
    return [(name, data) for name, data in papers.after({"root": len(papers.roots), kind: version}) if name == kind]


def status(hub: Hub) -> dict[str, Any]:
    """What is current, which documents and releases must be signed anew, and how many devices have said that they have all."""
    papers = hub.papers
    with hub.store.read() as tx:
        held = [row["documents"] or {} for row in rows.find(tx, devices, status="enrolled")]
        unsigned = [row for row in rows.find(tx, releases) if not papers.is_believed("release", row["envelope"])]
    have = {kind: sum(has.get(kind, 0) >= version_of(papers, kind) for has in held) for kind in KINDS}
    return {
        "documents": {kind: version_of(papers, kind) for kind in KINDS}, "epoch": papers.root.epoch,
        "floors": dict(papers.trust.floors), "stale": list(papers.stale), "devices": len(held), "have": have,
        "unsigned_releases": sorted(f"{row['model']}:{row['version']}" for row in unsigned),
    }  # fmt: skip
