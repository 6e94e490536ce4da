"""Devices that speak as two: noticed by their report numbers, put in quarantine, told in the audit log."""

from sqlalchemy import Connection

from edgeops.fleet.clone import Boot, Heard, hear
from edgeops.store import audit, rows
from edgeops.store.rows import Row
from edgeops.store.tables import devices
from edgeops.wire.errors import Rejected
from edgeops.wire.messages import State

from .hub import Hub


def listen(hub: Hub, tx: Connection, row: Row, state: State) -> Rejected | None:
    """Note which boot of a device spoke; the refusal when two of them are alive. From then on nothing it says is believed."""
    known = Heard(tuple(Boot(*one) for one in row["boots"] or ()))
    heard = hear(known, state.boot, state.seq)
    if heard == known:
        return None
    boots = [(one.id, one.first, one.last, one.late) for one in heard.boots]
    if not heard.is_clone:
        rows.change(tx, devices, {"id": row["id"]}, boots=boots)
        return None
    rows.change(tx, devices, {"id": row["id"]}, boots=boots, status="clone")
    text = f"boots {', '.join(sorted(one.id[:8] for one in heard.boots[-2:]))} take turns: two devices hold its keys"
    audit.write(tx, hub.now(), "ingest", "device-clone", row["id"], text)
    return Rejected("clone", f"{row['id']} speaks as two devices; it is in quarantine until an operator releases or re-enrols it")
