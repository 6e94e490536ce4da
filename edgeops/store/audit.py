"""Keeping the audit log and its checkpoints; what makes them hang together is said in `edgeops.wire.chain`.

Entries are only ever added, one after the other under the store's one writer, with the number after the last one's.
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select

from edgeops.wire.chain import FIRST, entry_digest

from .tables import audit, checkpoints

BATCH = 1000


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries somebody asks for: numbers between `after` and `before`, not before `since`, by one, of one kind."""

    before: int | None = None
    after: int | None = None
    since: int | None = None
    who: str | None = None
    action: str | None = None


def write(tx: Connection, at: int, who: str, action: str, subject: str, detail: str = "") -> str:
    """Append an entry and return its digest."""
    number, previous = last(tx)
    texts = {"who": who[:64], "action": action, "subject": subject[:256], "detail": detail}
    entry = {"number": number + 1, "at": at, **{name: _clean(text) for name, text in texts.items()}, "previous": previous}
    digest = entry_digest(entry)
    values = {("id" if name == "number" else name): value for name, value in entry.items()}
    tx.execute(insert(audit).values(**values, digest=digest))
    return digest


def _clean(text: str) -> str:
    """As canonical JSON can hold it: an odd character in a name must not keep a deed out of the log."""
    return unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode())


def last(tx: Connection) -> tuple[int, str]:
    """Number and digest of the newest entry; (0, FIRST) before there is any."""
    row = tx.execute(select(audit.c.id, audit.c.digest).order_by(audit.c.id.desc()).limit(1)).first()
    return (0, FIRST) if row is None else (int(row[0]), str(row[1]))


def page(tx: Connection, most: int, wanted: Wanted = Wanted()) -> list[dict[str, Any]]:
    """At most `most` entries, newest last: the first ones after `wanted.after` where that is given, else the newest ones."""
    query = select(audit)
    for column, value in ((audit.c.who, wanted.who), (audit.c.action, wanted.action)):
        query = query if value is None else query.where(column == value)
    query = query if wanted.before is None else query.where(audit.c.id < wanted.before)
    query = query if wanted.since is None else query.where(audit.c.at >= wanted.since)
    if wanted.after is not None:
        query = query.where(audit.c.id > wanted.after)
    order = audit.c.id.desc() if wanted.after is None else audit.c.id
    found = [_entry(row) for row in tx.execute(query.order_by(order).limit(most)).mappings()]
    return found[::-1] if wanted.after is None else found


def walk(tx: Connection) -> Iterator[dict[str, Any]]:
    """Every entry, first to last, a thousand at a time: the log may be longer than memory."""
    found = [_entry(row) for row in tx.execute(select(audit).order_by(audit.c.id).limit(BATCH)).mappings()]
    while found:
        yield from found
        found = page(tx, BATCH, Wanted(after=found[-1]["number"]))


def _entry(row: Any) -> dict[str, Any]:
    return {("number" if name == "id" else name): value for name, value in row.items()}


def newest_checkpoint(tx: Connection) -> tuple[int, bytes] | None:
    """The entry the newest checkpoint is for, and its envelope."""
    row = tx.execute(select(checkpoints).order_by(checkpoints.c.entry.desc()).limit(1)).mappings().first()
    return None if row is None else (int(row["entry"]), bytes(row["envelope"]))


def checkpoints_after(tx: Connection, entry: int, most: int) -> list[tuple[int, bytes]]:
    """(entry, envelope) of the checkpoints for later entries, oldest first."""
    query = select(checkpoints).where(checkpoints.c.entry > entry).order_by(checkpoints.c.entry).limit(most)
    return [(int(row["entry"]), bytes(row["envelope"])) for row in tx.execute(query).mappings()]
