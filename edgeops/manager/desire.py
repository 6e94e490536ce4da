"""Desired documents: a device's wishes, signed with a counter that only grows, sent with the documents they name."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from edgeops.rollout.conditions import NONE, UNDERSTOOD
from edgeops.store import outbox, rows
from edgeops.store.rows import Row
from edgeops.store.tables import devices, releases, streams, wishes
from edgeops.wire import canonical, envelope, topics
from edgeops.wire.desired import CommandDocument, Desired, SignedTime, SlotWish
from edgeops.wire.fields import Fields
from edgeops.wire.messages import Bundle

from .hub import Hub
from .papers import Document

DAY_S = 86_400
Slots = dict[str, SlotWish]
MOST_TOGETHER = 24  # documents of a bundle; it may hold 64, of which an order takes up to 34


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


def lacking(hub: Hub, row: Row) -> list[Document]:
    """The roots, site and floor this device does not have by its own account; an agent too old to say has what it enrolled with."""
    return hub.papers.after(row["documents"] or {"root": 1, "site": 1})


def hand_out(hub: Hub, tx: Connection, row: Row) -> None:
    """Send a device the documents it lacks, if any."""
    for part in _parts(lacking(hub, row)):
        outbox.post(tx, topics.down(row["id"], "doc"), Bundle(part).encode(), 1)


def _parts(documents: Sequence[Document]) -> list[tuple[Document, ...]]:
    """What may travel in one message each."""
    return [tuple(documents[at : at + MOST_TOGETHER]) for at in range(0, len(documents), MOST_TOGETHER)]


def counting(hub: Hub, tx: Connection, row: Row) -> Row:
    """The row with its counters of the current epoch. Those of an earlier one mean nothing to a device with the current root, which
    begins at 0 again: so whatever a stolen online key has counted up to is over.
    """
    if (row["epoch"] or 0) == hub.root.epoch:
        return row
    anew = {"epoch": hub.root.epoch, "counter": 0, "command": 0}
    rows.change(tx, devices, {"id": row["id"]}, **anew)
    return {**row, **anew}


def counts_with_us(hub: Hub, row: Row) -> bool:
    """Whether the device has a root of the current epoch by its own account: else its counters are of another count than ours."""
    return hub.papers.epoch_of((row["documents"] or {}).get("root", 1)) == hub.root.epoch


def command(hub: Hub, tx: Connection, device: str, kind: str, order: int) -> None:
    """Send a device a command for all orders up to `order`: `ack`, their outcomes are stored, or `commit`. Its number follows on
    what is stored, since another one may have been sent a moment ago.
    """
    row = rows.get(tx, devices, id=device)
    if row is None:
        return
    counter = counting(hub, tx, row)["command"] + 1
    rows.change(tx, devices, {"id": device}, command=counter)
    sealed = CommandDocument(hub.settings.fleet, device, row["incarnation"], hub.root.epoch, counter, kind, order)
    outbox.post(tx, topics.down(device, "cmd"), envelope.seal("command", sealed.payload(), [hub.online]), 1)


def answer(hub: Hub, tx: Connection, row: Row, nonce: str) -> None:
    """Answer a birth: what the device lacks of roots, site and floor, the signed time for its nonce, and what it should run.

    A manager that does not believe its own clock signs no time; the device goes on by what it knows.
    """
    device, row = row["id"], counting(hub, tx, row)
    *before, first = _parts(lacking(hub, row)) or [()]
    for part in before:
        outbox.post(tx, topics.down(device, "doc"), Bundle(part).encode(), 1)
    documents = current(hub, tx, row)
    counter = rows.get(tx, devices, id=device) or row
    time: list[Document] = []
    told = hub.timekeeper.tell(tx, hub.root, hub.now()) if nonce else None
    if told is not None:
        signed = SignedTime(hub.settings.fleet, device, nonce, told, hub.root.epoch, counter["counter"])
        time = [("time", envelope.seal("time", signed.payload(), [hub.online]))]
    if documents:
        # One message, so that the time is believed before the expiry is judged; not retained, since the nonce is of this boot.
        outbox.post(tx, topics.down(device, "desired"), Bundle((*first, *time, *documents)).encode(), 1)
    elif first or time:
        outbox.post(tx, topics.down(device, "doc"), Bundle((*first, *time)).encode(), 1)


def current(hub: Hub, tx: Connection, row: Row) -> list[Document]:
    """The stored desired document with what it names; a new one where it no longer says what we would; empty without wishes."""
    slots = offered(hub, tx, row["id"])
    if not slots:
        return []
    if not _stands(hub, row, slots):
        return issue(hub, tx, row)
    return [*_named(tx, slots), ("desired", row["desired"])]


def _stands(hub: Hub, row: Row, slots: Slots) -> bool:
    """Whether the stored desired document is whole, of our key and epoch, says what is wished, and is not past half its life."""
    half = hub.settings.desired_days * DAY_S // 2
    if row["desired"] is None or row["desired_expires"] - hub.now() < half:
        return False
    body, signatures = envelope.split(row["desired"], "desired")
    said = Desired.parse(Fields.of(canonical.decode(body, "desired"), "desired"))
    return (set(signatures), said.epoch, said.slots, said.must) == ({hub.online.id}, hub.root.epoch, slots, must(slots))


def must(slots: Slots) -> tuple[str, ...]:
    """What a device has to understand to be given these wishes: one that would not wait is not to have them."""
    return (UNDERSTOOD,) if any(wish.conditions != NONE for wish in slots.values()) else ()


def offered(hub: Hub, tx: Connection, device: str) -> Slots:
    """What is wished, but for slots whose release a key has signed that the root no longer names: a device would refuse the whole
    document, and so keeps in those what it has.
    """
    papers, slots = hub.papers, {}
    for row in rows.find(tx, wishes, device=device):
        wish = SlotWish.parse(Fields.of(row["wish"], "wish"))
        release = rows.get(tx, releases, digest=wish.release) if wish.release else None
        if release is None or papers.is_believed("release", release["envelope"]):
            slots[row["slot"]] = wish
    return slots


def issue(hub: Hub, tx: Connection, row: Row) -> list[Document]:
    """Sign a new desired document with the next counter and store it."""
    papers, device, now, row = hub.papers, row["id"], hub.now(), counting(hub, tx, row)
    slots = offered(hub, tx, device)
    expires, counter = now + hub.settings.desired_days * DAY_S, row["counter"] + 1
    desired = Desired(
        hub.settings.fleet, device, row["incarnation"], papers.root.epoch, counter, now, expires, slots, must=must(slots)
    )
    sealed = envelope.seal("desired", desired.payload(), [papers.online])
    rows.change(tx, devices, {"id": device}, counter=counter, desired=sealed, desired_expires=expires)
    return [*_named(tx, slots), ("desired", sealed)]


def reissue(hub: Hub, tx: Connection, device: str) -> None:
    """Push what is wished to a device whose stored desired document no longer says so; nothing where it does."""
    row = rows.get(tx, devices, id=device)
    if row is not None and row["desired"] is not None and not _stands(hub, row, offered(hub, tx, device)):
        push(hub, tx, device)


def adopt(hub: Hub, tx: Connection, row: Row, counter: int) -> None:
    """A device has seen a newer counter than ours (we came from a backup): go on from there."""
    rows.change(tx, devices, {"id": row["id"]}, counter=counter, desired=None, desired_expires=None)
    if rows.find(tx, wishes, device=row["id"]):
        push(hub, tx, row["id"])


def _named(tx: Connection, slots: Slots) -> list[Document]:
    """The release and stream documents these wishes name, each once."""
    active = [wish for wish in slots.values() if wish.action != "none"]
    found: list[Document] = []
    for digest in dict.fromkeys(wish.release for wish in active):
        if release := rows.get(tx, releases, digest=digest):
            found.append(("release", release["envelope"]))
    for digest in dict.fromkeys(wish.stream for wish in active if wish.stream):
        if stream := rows.get(tx, streams, digest=digest):
            found.append(("stream", stream["envelope"]))
    return found
