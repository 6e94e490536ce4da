"""Devices as the API speaks of them: what they are called and labelled, and what is shown of them."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from edgeops.fleet.device import LastSeen, check_id, check_labels
from edgeops.fleet.device import presence as derive
from edgeops.store import audit, rows
from edgeops.store.rows import Row
from edgeops.store.tables import devices, reports, wishes
from edgeops.wire.device_class import CLASSES
from edgeops.wire.errors import Misuse
from edgeops.wire.keys import sha256

from .hub import Hub

RESERVED = ("manager",)


def must_get(tx: Connection, device: str) -> Row:
    """The row of a device; raises Misuse("unknown-device")."""
    row = rows.get(tx, devices, id=device)
    if row is None:
        raise Misuse("unknown-device", f"there is no device {device!r}; `edgeops device list` shows all")
    return row


def check_new(device: str, labels: Mapping[str, str]) -> None:
    """Raise Misuse("device-id-invalid" | "labels-invalid") unless a device may be called and labelled so."""
    check_id(device)
    if device in RESERVED:
        raise Misuse("device-id-invalid", f"device id {device!r} is the manager's own name; choose another")
    check_labels(labels)


def blank(device: str, labels: Mapping[str, str], now: int) -> dict[str, Any]:
    """The row of a device nobody has seen."""
    return {
        "id": device, "labels": dict(labels), "status": "registered", "created": now, "incarnation": 0, "counter": 0, "command": 0,
        "capabilities": {}, "facts": {}, "agent": "", "presence": "never", "paused_s": 0,
    }  # fmt: skip


def relabel(hub: Hub, who: str, device: str, labels: Mapping[str, str | None]) -> dict[str, Any]:
    """Set labels; None or an empty value removes one. Returns the device."""
    with hub.store.write() as tx:
        row = must_get(tx, device)
        kept = {name: value for name, value in {**row["labels"], **labels}.items() if value}
        check_labels(kept)
        rows.change(tx, devices, {"id": device}, labels=kept)
        said = " ".join(f"{name}={value}" for name, value in sorted(kept.items()))
        audit.write(tx, hub.now(), who, "device-relabel", device, said)
        return view(hub, tx, must_get(tx, device))


def show(hub: Hub, device: str) -> dict[str, Any]:
    """One device with its reported and desired slots."""
    with hub.store.read() as tx:
        return view(hub, tx, must_get(tx, device))


PUBLIC = (
    "id", "labels", "status", "created", "incarnation", "certificate_expires", "counter", "capabilities", "facts", "agent",
    "last_seen", "boot", "fingerprint", "pending", "documents",
)  # fmt: skip


def view(hub: Hub, tx: Connection, row: Row) -> dict[str, Any]:
    """What the API tells of a device: `slots` is what runs as model:version, `reported` and `desired` the whole story.

    Of keys only fingerprints are told.
    """
    report = rows.get(tx, reports, device=row["id"])
    reported = report["slots"] if report else {}
    waits = row["pending"]
    return {name: row[name] for name in PUBLIC} | {
        "pending": {**waits, "identity": sha256(bytes.fromhex(waits["identity"]))} if waits else None,
        "identity": sha256(row["identity"]) if row["identity"] else None, "approval": bool(row["approval"]),
        "presence": presence(row, hub.now()), "device_class": device_class(row),
        "token_expires": row["token_expires"] if row["token_hash"] and not row["token_spent"] else None,
        "slots": {name: runs(slot) for name, slot in reported.items()}, "reported": reported,
        "counters": report["counters"] if report else {}, "reported_at": report["received"] if report else None,
        "desired": {wish["slot"]: wish["wish"] for wish in rows.find(tx, wishes, device=row["id"])},
    }  # fmt: skip


def runs(slot: Mapping[str, Any]) -> str:
    """What a reported slot runs, as model:version, or nothing."""
    return f"{slot['model']}:{slot['version']}" if slot.get("model") and slot.get("version") else ""


def device_class(row: Row) -> str:
    """The class a device said it has, empty when it never said or said one there is not."""
    found = row["capabilities"].get("class", "")
    return found if isinstance(found, str) and found in CLASSES else ""


def presence(row: Row, now: int) -> str:
    """never, online, offline or unknown; see `edgeops.fleet.device.presence`."""
    if row["last_seen"] is None:
        return "never"
    at, what = row["presence_at"], row["presence"]
    seen = LastSeen(row["last_seen"], at if what == "offline" else None, at if what == "gone" else None)
    return derive(seen, now).here
