"""The audit log: each entry carries the digest of the one before, so nothing can be changed or dropped unnoticed (but the tail)."""

from typing import Any

from sqlalchemy import Connection, insert, select

from edgeops.wire import canonical
from edgeops.wire.keys import sha256

from .tables import audit

FIRST = "0" * 64


def write(tx: Connection, at: int, who: str, action: str, subject: str, detail: str = "") -> str:
    """Append an entry and return its digest."""
    last = tx.execute(select(audit.c.digest).order_by(audit.c.id.desc()).limit(1)).scalar()
    entry = {"at": at, "who": who[:64], "action": action, "subject": subject[:256], "detail": detail, "previous": last or FIRST}
    digest = _digest(entry)
    tx.execute(insert(audit).values(**entry, digest=digest))
    return digest


def newest(tx: Connection, most: int) -> list[dict[str, Any]]:
    """The newest entries, newest last."""
    query = select(audit).order_by(audit.c.id.desc()).limit(most)
    return [dict(row) for row in reversed(tx.execute(query).mappings().all())]


def broken_at(tx: Connection) -> int | None:
    """The number of the first entry that does not fit the chain; None when all do."""
    previous = FIRST
    for row in tx.execute(select(audit).order_by(audit.c.id)).mappings():
        entry = {name: row[name] for name in ("at", "who", "action", "subject", "detail", "previous")}
        if row["previous"] != previous or row["digest"] != _digest(entry):
            return int(row["id"])
        previous = row["digest"]
    return None


def _digest(entry: dict[str, Any]) -> str:
    return sha256(canonical.encode(entry))
