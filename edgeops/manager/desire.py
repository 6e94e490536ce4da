"""Desired documents: a device's wishes, signed with a counter that only grows, sent with the documents they name."""

from typing import Any

from sqlalchemy import Connection

from edgeops.store import outbox, rows
from edgeops.store.rows import Row
from edgeops.store.tables import devices, releases, streams, wishes
from edgeops.wire import topics
from edgeops.wire.desired import CommandDocument, Desired, SignedTime, SlotWish
from edgeops.wire.envelope import seal
from edgeops.wire.fields import Fields
from edgeops.wire.messages import Bundle

from .hub import Hub

DAY_S = 86_400
Document = tuple[str, bytes]


def wish_of(tx: Connection, device: str, slot: str) -> dict[str, Any] | None:
    """What a device is wished to do in a slot, as JSON; None for nothing ever."""
    row = rows.get(tx, wishes, device=device, slot=slot)
    return None if row is None else row["wish"]


def set_wish(tx: Connection, device: str, slot: str, wish: dict[str, Any]) -> bool:
    """Store a wish; whether it differs from the one before."""
    if wish_of(tx, device, slot) == wish:
        return False
    rows.put(tx, wishes, device=device, slot=slot, wish=wish)
    return True


def push(hub: Hub, tx: Connection, device: str) -> None:
    """Sign the wishes of a device anew and put them in the outbox, retained."""
    row = rows.get(tx, devices, id=device)
    if row is None or row["status"] != "enrolled":
        return
    documents = issue(hub, tx, row)
    outbox.post(tx, topics.down(device, "desired"), Bundle(tuple(documents)).encode(), 1, True)


def acknowledge(hub: Hub, tx: Connection, row: Row, order: int) -> None:
    """Tell a device that the outcomes of its orders up to `order` are stored, so that it need not repeat them."""
    counter = row["command"] + 1
    rows.change(tx, devices, {"id": row["id"]}, command=counter)
    command = CommandDocument(hub.settings.fleet, row["id"], row["incarnation"], hub.root.epoch, counter, "ack", order)
    outbox.post(tx, topics.down(row["id"], "cmd"), seal("command", command.payload(), [hub.online]), 1)


def answer(hub: Hub, tx: Connection, row: Row, nonce: str) -> None:
    """Answer a birth: the signed time for its nonce, and what the device should run."""
    device = row["id"]
    documents = current(hub, tx, row)
    counter = rows.get(tx, devices, id=device) or row
    time: list[Document] = []
    if nonce:
        signed = SignedTime(hub.settings.fleet, device, nonce, hub.now(), hub.root.epoch, counter["counter"])
        time = [("time", seal("time", signed.payload(), [hub.online]))]
    if documents:
        # One message, so that the time is believed before the expiry is judged; not retained, since the nonce is of this boot.
        outbox.post(tx, topics.down(device, "desired"), Bundle((*time, *documents)).encode(), 1)
    elif time:
        outbox.post(tx, topics.down(device, "doc"), Bundle(tuple(time)).encode(), 1)


def current(hub: Hub, tx: Connection, row: Row) -> list[Document]:
    """The stored desired document with what it names; a new one when it is missing or past half its life; empty without wishes."""
    if not rows.find(tx, wishes, device=row["id"]):
        return []
    half = hub.settings.desired_days * DAY_S // 2
    if row["desired"] is None or row["desired_expires"] - hub.now() < half:
        return issue(hub, tx, row)
    return [*_named(tx, row["id"]), ("desired", row["desired"])]


def issue(hub: Hub, tx: Connection, row: Row) -> list[Document]:
    """Sign a new desired document with the next counter and store it."""
    device, now = row["id"], hub.now()
    slots = {wish["slot"]: SlotWish.parse(Fields.of(wish["wish"], "wish")) for wish in rows.find(tx, wishes, device=device)}
    expires, counter = now + hub.settings.desired_days * DAY_S, row["counter"] + 1
    desired = Desired(
        hub.settings.fleet, device, row["incarnation"], hub.root.epoch, counter, now, expires, slots
    )
    sealed = seal("desired", desired.payload(), [hub.online])
    rows.change(tx, devices, {"id": device}, counter=counter, desired=sealed, desired_expires=expires)
    return [*_named(tx, device), ("desired", sealed)]


def adopt(hub: Hub, tx: Connection, row: Row, counter: int) -> None:
    """A device has seen a newer counter than ours (we came from a backup): go on from there."""
    rows.change(tx, devices, {"id": row["id"]}, counter=counter, desired=None, desired_expires=None)
    if rows.find(tx, wishes, device=row["id"]):
        push(hub, tx, row["id"])


def _named(tx: Connection, device: str) -> list[Document]:
    """The release and stream documents the wishes of a device name, each once."""
    active = [wish["wish"] for wish in rows.find(tx, wishes, device=device) if wish["wish"]["action"] != "none"]
    found: list[Document] = []
    for digest in dict.fromkeys(wish["release"] for wish in active):
        if release := rows.get(tx, releases, digest=digest):
            found.append(("release", release["envelope"]))
    for digest in dict.fromkeys(wish["stream"] for wish in active if wish["stream"]):
        if stream := rows.get(tx, streams, digest=digest):
            found.append(("stream", stream["envelope"]))
    return found
