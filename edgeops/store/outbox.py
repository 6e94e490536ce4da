"""The outbox: messages stored with the state they follow from, published after the commit, in order."""

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from .tables import outbox


@dataclass(frozen=True, slots=True)
class Letter:
    """One message waiting to be published."""

    id: int
    topic: str
    payload: bytes
    qos: int
    retain: bool


def post(tx: Connection, topic: str, payload: bytes, qos: int = 1, retain: bool = False) -> None:
    """Add a message. An older waiting one for the same retained topic is obsolete and goes."""
    if retain:
        tx.execute(delete(outbox).where(outbox.c.topic == topic, outbox.c.retain == 1))
    tx.execute(insert(outbox).values(topic=topic, payload=payload, qos=qos, retain=int(retain)))


def waiting(tx: Connection, most: int) -> list[Letter]:
    """The oldest messages."""
    rows = tx.execute(select(outbox).order_by(outbox.c.id).limit(most)).mappings()
    return [Letter(row["id"], row["topic"], row["payload"], row["qos"], bool(row["retain"])) for row in rows]


def sent(tx: Connection, ids: list[int]) -> None:
    """Remove published messages."""
    tx.execute(delete(outbox).where(outbox.c.id.in_(ids)))
