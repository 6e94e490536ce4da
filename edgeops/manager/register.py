"""How a device comes to be known: registered with a token or a fingerprint, given a new token, approved or rejected."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection

from edgeops.fleet import enrol as rules
from edgeops.fleet.enrol import Enrolment
from edgeops.fleet.selector import parse_selector
from edgeops.store import audit, rows
from edgeops.store.rows import Row
from edgeops.store.tables import devices, reports
from edgeops.wire.errors import Misuse

from .devices import blank, check_new, must_get, view
from .enrol import keep, line, new_token, state_of
from .hub import Hub


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a device is to enrol. A `fingerprint` of its identity key stands for a token; `reissue` takes an id that was ended."""

    labels: Mapping[str, str]
    ttl_s: int | None = None
    approval: bool = False
    fingerprint: str = ""
    reissue: bool = False


def register(hub: Hub, who: str, device: str, wanted: Wanted) -> dict[str, Any]:
    """A new device and its enrolment token, or the join line for one that the factory has announced.

    Raises Misuse("device-id-invalid" | "labels-invalid" | "device-exists" | "device-decommissioned" | "fingerprint-invalid" |
    "fingerprint-taken").
    """
    check_new(device, wanted.labels)
    fingerprint = rules.check_fingerprint(wanted.fingerprint) if wanted.fingerprint else ""
    with hub.store.write() as tx:
        incarnation = _make_room(hub, tx, device, wanted)
        taken = rows.get(tx, devices, fingerprint=fingerprint) if fingerprint else None
        if taken is not None:
            raise Misuse("fingerprint-taken", f"fingerprint {fingerprint} is that of {taken['id']} already; one key is one device")
        state = Enrolment(device, incarnation=incarnation, fingerprint=fingerprint, approval=wanted.approval)
        state, text = (state, line(hub)) if fingerprint else new_token(hub, tx, state, wanted.ttl_s)
        keep(tx, state)
        audit.write(tx, hub.now(), who, "device-register", device, _told(wanted, fingerprint))
        return _answer(hub, tx, device, text)


def _make_room(hub: Hub, tx: Connection, device: str, wanted: Wanted) -> int:
    """A blank row for the device; the incarnation it goes on from, so that nothing of an ended one is ever valid again."""
    row = rows.get(tx, devices, id=device)
    fresh = blank(device, wanted.labels, hub.now())
    if row is None:
        rows.add(tx, devices, **fresh)
        return 0
    if row["status"] != "decommissioned":
        text = f"there is a device {device!r} already; `edgeops device token {device}` renews its token"
        raise Misuse("device-exists", text)
    if not wanted.reissue:
        again = f"`edgeops device register {device} --reissue` gives its id to another"
        raise Misuse("device-decommissioned", f"there was a device {device!r}, which was decommissioned; {again}")
    clean = dict.fromkeys(("boot", "boots", "born", "documents", "last_seen", "presence_at", "silenced_at"))
    rows.change(tx, devices, {"id": device}, **{**fresh, **clean, "incarnation": row["incarnation"]})
    rows.drop(tx, reports, device=device)  # what the old machine ran is not what the new one runs
    return int(row["incarnation"])


def _told(wanted: Wanted, fingerprint: str) -> str:
    said = {
        f"fingerprint {fingerprint}": fingerprint, "must be approved": wanted.approval, "id used before": wanted.reissue,
    }  # fmt: skip
    return ", ".join(text for text, holds in said.items() if holds)


def reissue(hub: Hub, who: str, device: str, ttl_s: int | None = None) -> dict[str, Any]:
    """A new token for a known device, which makes older ones worthless; a revoked device or a clone comes back this way."""
    with hub.store.write() as tx:
        state, text = new_token(hub, tx, state_of(must_get(tx, device)), ttl_s)
        keep(tx, state)
        audit.write(tx, hub.now(), who, "device-token", device)
        return _answer(hub, tx, device, text)


def _answer(hub: Hub, tx: Connection, device: str, text: str) -> dict[str, Any]:
    row = must_get(tx, device)
    return {"device": view(hub, tx, row), "token": text, "expires": row["token_expires"]}


def pending(hub: Hub, selector: str = "all") -> list[dict[str, Any]]:
    """Who waits for an operator's word and is matched, by id."""
    matches = parse_selector(selector).matches
    with hub.store.read() as tx:
        return [_shown(row) for row in _waiting(tx) if matches({**row["labels"], "id": row["id"]})]


def _waiting(tx: Connection) -> list[Row]:
    return [row for row in rows.find(tx, devices) if row["pending"] and not row["pending"]["verdict"]]


def _shown(row: Row) -> dict[str, Any]:
    waits = row["pending"]
    return {
        "id": row["id"], "kind": waits["kind"], "fingerprint": rules.fingerprint_of(waits["identity"]), "since": waits["since"],
        "labels": row["labels"],
    }  # fmt: skip


def decide(hub: Hub, who: str, verdict: Literal["granted", "rejected"], meant: Mapping[str, str]) -> list[dict[str, Any]]:
    """An operator's word on devices, each with the fingerprint it was seen with: on all of them or, if one waits with another
    key by now, on none. Raises Misuse("unknown-device" | "nothing-pending" | "fingerprint-invalid" | "fingerprint-changed").

    Nothing is sent: whoever waits asks again, and only who holds the same identity key is answered.
    """
    action = "device-approve" if verdict == "granted" else "device-reject"
    with hub.store.write() as tx:
        found = [must_get(tx, name) for name in meant]
        for row in found:
            keep(tx, rules.decide(state_of(row), verdict))
            shown = _shown(row)
            if rules.check_fingerprint(meant[row["id"]]) != shown["fingerprint"]:
                text = f"{row['id']} waits with the identity key {shown['fingerprint']} now, not with the one you saw; look again"
                raise Misuse("fingerprint-changed", text)
            audit.write(tx, hub.now(), who, action, row["id"], f"{shown['kind']}, identity {shown['fingerprint']}")
        return [_shown(row) for row in found]
