"""Devices as the API speaks of them: registering, labels, revoking, finding by selector."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from edgeops.store import audit, rows
from edgeops.store.rows import Row
from edgeops.store.tables import devices, reports, wishes
from edgeops.wire.errors import Misuse
from edgeops.wire.fields import ID

from .hub import Hub

RESERVED = ("manager",)
MAX_LABELS = 32


def must_get(tx: Connection, device: str) -> Row:
    """The row of a device; raises Misuse("unknown-device")."""
    row = rows.get(tx, devices, id=device)
    if row is None:
        raise Misuse("unknown-device", f"there is no device {device!r}; `edgeops device list` shows all")
    return row


def check_id(device: str) -> None:
    """Raise Misuse("bad-id") unless `device` may be a device's name."""
    if not ID.fullmatch(device) or device in RESERVED:
        raise Misuse("bad-id", f"device id {device!r} must match {ID.pattern} and not be {', '.join(RESERVED)}")


def check_labels(labels: Mapping[str, Any]) -> None:
    """Raise Misuse("bad-label") for labels that are not short texts under ids."""
    if len(labels) > MAX_LABELS:
        raise Misuse("bad-label", f"a device has at most {MAX_LABELS} labels, not {len(labels)}")
    for name, value in labels.items():
        if not ID.fullmatch(name) or not isinstance(value, str) or len(value) > 128 or not value.isprintable():
            raise Misuse("bad-label", f"label {name!r}={value!r}: the name must match {ID.pattern}, the value be a short text")


def blank(device: str, labels: Mapping[str, str], now: int) -> dict[str, Any]:
    """The row of a device nobody has seen."""
    return {
        "id": device, "labels": dict(labels), "status": "registered", "created": now, "incarnation": 0, "counter": 0,
        "capabilities": {}, "facts": {}, "agent": "", "presence": "never", "paused_s": 0,
    }  # fmt: skip


def relabel(hub: Hub, who: str, device: str, labels: Mapping[str, str | None]) -> dict[str, Any]:
    """Set labels; a None value removes one. Returns the device."""
    with hub.store.write() as tx:
        row = must_get(tx, device)
        merged = {**row["labels"], **labels}
        kept = {name: value for name, value in merged.items() if value is not None}
        check_labels(kept)
        rows.change(tx, devices, {"id": device}, labels=kept)
        audit.write(tx, hub.now(), who, "device-relabel", device, " ".join(f"{name}={value}" for name, value in sorted(kept.items())))
        return view(hub, tx, must_get(tx, device))


def show(hub: Hub, device: str) -> dict[str, Any]:
    """One device with its reported and desired slots."""
    with hub.store.read() as tx:
        return view(hub, tx, must_get(tx, device))


def view(hub: Hub, tx: Connection, row: Row) -> dict[str, Any]:
    """What the API tells of a device."""
    report = rows.get(tx, reports, device=row["id"])
    public = ("id", "labels", "status", "created", "incarnation", "certificate_expires", "counter", "capabilities", "facts", "agent")
    return {name: row[name] for name in public} | {
        "presence": presence(row, hub.now(), hub.settings.gone_after_s), "last_seen": row["last_seen"], "boot": row["boot"],
        "token_expires": row["token_expires"] if row["token_hash"] and not row["token_spent"] else None,
        "slots": report["slots"] if report else {}, "counters": report["counters"] if report else {},
        "reported_at": report["received"] if report else None,
        "desired": {wish["slot"]: wish["wish"] for wish in rows.find(tx, wishes, device=row["id"])},
    }  # fmt: skip


def presence(row: Row, now: int, gone_after_s: int) -> str:
    """never, online, offline (said goodbye), or gone (will, or silent for longer than `gone_after_s`)."""
    if row["presence"] == "online" and now - (row["last_seen"] or 0) > gone_after_s:
        return "gone"
    return str(row["presence"])
