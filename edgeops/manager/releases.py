"""Releases: taken in only when signed by the release role and complete; never made here."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection

from edgeops.parcel.manifest import Manifest
from edgeops.store import Blobs, audit, rows
from edgeops.store.rows import Row
from edgeops.store.tables import releases, reports, wishes
from edgeops.wire import envelope
from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.release import Release, Side
from edgeops.wire.rotation import read_root
from edgeops.wire.trust import accept_release

from .desire import reissue
from .hub import Hub
from .problems import Missing


def accept(hub: Hub, who: str, sealed: bytes) -> dict[str, Any]:
    """Store a release, or new signatures of one that is here; raises Rejected (signature, content), Missing (objects to upload
    first), Misuse("release-exists").
    """
    sealed = _without_removed(hub, sealed)
    digest, release = accept_release(hub.trust, sealed)
    with hub.store.read() as tx:
        _known(tx, release, digest)
    check_objects(hub.blobs, release)
    with hub.store.write() as tx:
        known = _known(tx, release, digest)
        if known is not None and known["envelope"] != sealed:
            _sign_anew(hub, tx, who, known, sealed)
        elif known is None:
            rows.put(
                tx, releases, digest=digest, model=release.model, version=release.version, kind=release.kind, stored=hub.now(),
                envelope=sealed,
            )  # fmt: skip
            audit.write(tx, hub.now(), who, "release-store", f"{release.model}:{release.version}", digest)
    return {"digest": digest, "model": release.model, "version": release.version}


def _without_removed(hub: Hub, sealed: bytes) -> bytes:
    """The envelope without signatures of keys that were release keys once: devices refuse every signature they cannot check."""
    papers = hub.papers
    once = {name for root in papers.roots for name in read_root(root).roles["release"].keys}
    signed, now = envelope.signers_of(sealed, "release"), set(papers.root.roles["release"].keys)
    return envelope.signed_only_by(sealed, "release", signed - (once - now)) if signed & now else sealed


def _sign_anew(hub: Hub, tx: Connection, who: str, known: Row, sealed: bytes) -> None:
    """Take new signatures of a stored release, and order it where nothing was ordered while nobody would have believed the old."""
    rows.change(tx, releases, {"digest": known["digest"]}, envelope=sealed)
    signed = ", ".join(sorted(envelope.signers_of(sealed, "release")))
    audit.write(tx, hub.now(), who, "release-sign", f"{known['model']}:{known['version']}", signed)
    for device in sorted({row["device"] for row in rows.find(tx, wishes) if row["wish"].get("release") == known["digest"]}):
        reissue(hub, tx, device)


def must_be_believed(hub: Hub, row: Row) -> None:
    """Raise Misuse("release-unsigned" | "below-floor") for a release that devices would refuse."""
    papers, name = hub.papers, f"{row['model']}:{row['version']}"
    if not papers.is_believed("release", row["envelope"]):
        signed = ", ".join(sorted(envelope.signers_of(row["envelope"], "release")))
        text = f"{name} is signed by {signed}: not enough of the release keys that root {papers.root.version} names"
        raise Misuse("release-unsigned", f"{text}; run `edgeops release sign` on its folder again, then `edgeops release upload`")
    floor = papers.trust.floors.get(row["model"], 0)
    if row["version"] < floor:
        raise Misuse("below-floor", f"{name} lies below the floor of {row['model']}, which is {floor}; devices would refuse it")


def _known(tx: Connection, release: Release, digest: str) -> Row | None:
    known = rows.get(tx, releases, model=release.model, version=release.version)
    if known is not None and known["digest"] != digest:
        raise Misuse("release-exists", f"{release.model}:{release.version} exists with other content; use the next version")
    return known


def check_objects(blobs: Blobs, release: Release) -> None:
    """Raise Missing naming every absent object, Rejected("bad-object" | "wrong-size") for one that differs."""
    missing = _absent(blobs, (*release.sides.values(), *(variant.manifest for variant in release.variants.values())))
    for name, variant in release.variants.items():
        if variant.manifest.sha256 not in missing:
            manifest = Manifest.decode(blobs.read(variant.manifest.sha256))
            size = variant.manifest.size + manifest.size
            if variant.size != size:
                raise Rejected("wrong-size", f"variant {name} says {variant.size} bytes, its objects have {size}: make it anew")
            missing |= _absent(blobs, manifest.objects)
            if manifest.inline:
                missing |= _absent(blobs, [manifest.inline.skeleton])
    if missing:
        raise Missing(sorted(missing))


def _absent(blobs: Blobs, sides: Iterable[Side]) -> set[str]:
    missing = set()
    for side in sides:
        size = blobs.size(side.sha256)
        if size is None:
            missing.add(side.sha256)
        elif size != side.size:
            raise Rejected("wrong-size", f"object {side.sha256[:12]} has {size} bytes, the release says {side.size}")
    return missing


def must_find(tx: Connection, model: str, version: int) -> Row:
    """The row of a release; raises Misuse("unknown-release")."""
    row = rows.get(tx, releases, model=model, version=version)
    if row is None:
        raise Misuse("unknown-release", f"there is no release {model}:{version}; `edgeops release list` shows all")
    return row


def read(row: Row) -> Release:
    """The release document of a row; verified when it was stored."""
    return Release.parse(envelope.contents(row["envelope"], "release"))


def view(hub: Hub, row: Row) -> dict[str, Any]:
    """What the API tells of a release; `believed` is whether devices with the current root believe its signatures."""
    release, papers = read(row), hub.papers
    names = ("kind", "created", "inputs", "outputs", "ir", "opset", "runtime", "variants", "sides")
    payload = release.payload()
    signed = sorted(envelope.signers_of(row["envelope"], "release"))
    return {"digest": row["digest"], "model": row["model"], "version": row["version"], "stored": row["stored"]} | {
        "signed_by": signed, "removed_keys": [name for name in signed if name not in papers.root.roles["release"].keys],
        "believed": papers.is_believed("release", row["envelope"]), **{name: payload[name] for name in names},
    }  # fmt: skip


def listed(hub: Hub) -> list[dict[str, Any]]:
    """All releases by model and version."""
    with hub.store.read() as tx:
        found = rows.find(tx, releases)
    return [view(hub, row) for row in sorted(found, key=lambda row: (row["model"], row["version"]))]


def models(hub: Hub) -> list[dict[str, Any]]:
    """All models: their versions, the latest, and how many devices report to run each."""
    with hub.store.read() as tx:
        found = rows.find(tx, releases)
        slots = [slot for row in rows.find(tx, reports) for slot in row["slots"].values()]
    names = sorted({row["model"] for row in found})
    return [
        {
            "model": name, "versions": (versions := sorted(row["version"] for row in found if row["model"] == name)),
            "latest": versions[-1], "devices": sum(slot.get("model") == name and bool(slot.get("version")) for slot in slots),
        }
        for name in names
    ]  # fmt: skip
