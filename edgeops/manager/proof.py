"""Requests that a device proves with its identity key over HTTPS: to renew its certificate, to let its browser in."""

from sqlalchemy import Connection

from edgeops.store import rows
from edgeops.store.rows import Row
from edgeops.store.tables import devices
from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.fields import Fields
from edgeops.wire.messages import open_report

from .hub import Hub


def proven(hub: Hub, tx: Connection, kind: str, device: str, sealed: bytes) -> tuple[Row, Fields]:
    """The row of the device a request names, and what it says, once that device's key is seen to have signed it.

    One answer to all who have not, Misuse("renew-refused" | "credential-refused"), tells nobody which devices exist. Raises
    Rejected("incarnation") too.
    """
    row = rows.get(tx, devices, id=device)
    try:
        if row is None or row["identity"] is None:
            raise Rejected("unknown-key", "nobody of this name")
        fields = open_report(sealed, kind, row["identity"])
    except Rejected as error:
        text = f"{kind}: there is no such device, or its identity key has not signed this"
        raise Misuse(f"{kind}-refused", text) from error
    if fields.text("fleet") != hub.settings.fleet or fields.number("incarnation", 1) != row["incarnation"]:
        raise Rejected("incarnation", f"{kind}: of another fleet or incarnation; enrol the device again")
    return row, fields
