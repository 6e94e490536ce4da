"""Reading what came down: documents in, a new record and offers to the slots out. Pure; the trust rules are edgeops.wire.trust.

A refused document changes nothing but a counter. The counter of an accepted desired document and the slots' reaction to it are one
record, so a power cut loses both or neither.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from edgeops.parcel.stream import StreamList
from edgeops.wire import canonical, envelope
from edgeops.wire.desired import Desired, SignedTime, SlotWish
from edgeops.wire.errors import EdgeopsError, Rejected, Unfit
from edgeops.wire.fields import Fields
from edgeops.wire.keys import sha256
from edgeops.wire.messages import Bundle
from edgeops.wire.trust import (
    Capabilities,
    Trust,
    accept_command,
    accept_desired,
    accept_floor,
    accept_release,
    accept_site,
    accept_time,
    admit,
    advance_root,
    current_root,
)

from .record import Record
from .slot import WORKING, Acked, Build, Cleared, Command, Failed, Fetch, Offered, Slot, Stopped, Target, Voided
from .update import step

FETCH_S, WORK_S = 86_400, 600
MAX_SLOTS = 16


@dataclass(frozen=True, slots=True)
class Situation:
    """What the reader must know: believed time, the open nonce, what this device is, kept documents by digest.

    `asked` is the tick at which the nonce was sent, `wall` what the device's own clock shows, `sure` whether `now` rests on a
    signed time of this boot.
    """

    now: int
    tick: int
    nonce: str
    device: Capabilities
    documents: Mapping[str, bytes]
    asked: int = 0
    wall: int = 0
    sure: bool = False


@dataclass(frozen=True, slots=True)
class Received:
    """The record to store first, then documents to keep, then commands per slot to carry out.

    `anew` says that a root raised the epoch: what this boot believed of time is void. `site` is to be kept before the record is.
    """

    record: Record
    documents: Mapping[str, bytes] = field(default_factory=dict)
    commands: tuple[tuple[str, Command], ...] = ()
    time: SignedTime | None = None
    site: bytes | None = None
    refused: tuple[str, ...] = ()
    anew: bool = False


def receive(record: Record, bundle: Bundle, situation: Situation) -> Received:
    """Read the documents of a bundle in order. Never raises for what the other side sent."""
    so_far = Received(record)
    for name, data in bundle.documents:
        try:
            so_far = _read(so_far, name, data, situation)
        except EdgeopsError as error:
            so_far = _refuse(so_far, name, data, error)
    return so_far


def obey(record: Record, data: bytes) -> tuple[Record, tuple[tuple[str, Command], ...]]:
    """Read a command: the record to store first, then what to carry out; raises Rejected, Unfit. A duplicate changes nothing."""
    _check_sure(record, "command")
    try:
        trust, command = accept_command(record.trust, data)
    except Rejected as error:
        if error.reason == "replay" and _counter(data, "command") == record.trust.command:
            return record, ()
        raise
    told, given = replace(record, trust=trust), []
    event = Cleared(command.upto) if command.kind == "commit" else Acked(command.upto)
    for name, slot in record.slots.items():
        obeyed, commands = step(slot, event)
        told = told.with_slot(name, obeyed)
        given += [(name, one) for one in commands]
    return told, tuple(given)


def rested(record: Record) -> Record:
    """The record of an agent that is being stopped by somebody who means to: no slot will blame its target for that."""
    for name, slot in record.slots.items():
        record = record.with_slot(name, step(slot, Stopped())[0])
    return record


def _refuse(so_far: Received, name: str, data: bytes, error: EdgeopsError) -> Received:
    if error.reason == "replay" and _counter(data, "desired") == so_far.record.trust.counter:
        return replace(so_far, record=so_far.record.counted("duplicate_desired"))
    counted = so_far.record.counted(f"refused_{name}").counted(f"refused_{name}.{error.reason}")
    return replace(so_far, record=counted, refused=(*so_far.refused, f"{name}: {error}"))


def _counter(data: bytes, kind: str) -> int:
    """The counter of an envelope whose signature has been verified already."""
    return envelope.contents(data, kind).number("counter")


def _read(so_far: Received, name: str, data: bytes, situation: Situation) -> Received:
    record, trust = so_far.record, so_far.record.trust
    match name:
        case "root":
            return _take_root(so_far, data)
        case "site":
            return _take_site(so_far, data)
        case "floor":
            return replace(so_far, record=replace(record, trust=accept_floor(trust, data)))
        case "time":
            trust, time = accept_time(trust, data, situation.nonce)
            return replace(so_far, record=_sure_again(replace(record, trust=trust), time), time=time)
        case "release":
            digest, _ = accept_release(trust, data)
            return replace(so_far, documents={**so_far.documents, digest: data})
        case "stream":
            digest, _ = open_stream(trust, data)
            return replace(so_far, documents={**so_far.documents, digest: data})
        case "desired":
            return _take_desired(so_far, data, situation)
    raise Rejected("wrong-type", f"a device takes no {name} document")


def _take_root(so_far: Received, data: bytes) -> Received:
    """The next root. A raised epoch also voids a time that was signed before it, in this bundle or in this boot, and begins to
    count orders anew: what an order of a stolen key has left in the slots must not be newer than every honest one.
    """
    before = so_far.record.trust
    after = advance_root(before, data)
    taken = replace(so_far, record=replace(so_far.record, trust=after))
    if current_root(after).epoch == current_root(before).epoch:
        return taken
    record = taken.record
    commands: list[tuple[str, Command]] = [(name, one) for name, one in taken.commands if not isinstance(one, Fetch)]
    for name, slot in record.slots.items():
        anew, given = step(slot, Voided())
        record = record.with_slot(name, anew)
        commands += [(name, command) for command in given]
    return replace(taken, record=record, commands=tuple(commands), time=None, anew=True)


def _take_site(so_far: Received, data: bytes) -> Received:
    """A newer site, beside the last one that has proven itself. One that we know may come again: its file may have got lost."""
    record, digest = so_far.record, envelope.digest_of(data, "site")
    if digest in record.sites:
        return replace(so_far, site=data)
    trust, _ = accept_site(record.trust, data)
    return replace(so_far, record=replace(record, trust=trust, sites=(digest, *record.sites[-1:])), site=data)


def _sure_again(record: Record, time: SignedTime) -> Record:
    """The manager has answered our nonce: its newest order is the least that a damaged record may go on with."""
    if not record.unsure:
        return record
    counter = max(record.trust.counter, time.counter - 1)
    return replace(record, trust=replace(record.trust, counter=counter), unsure=False)


def _check_sure(record: Record, what: str) -> None:
    if record.unsure:
        raise Rejected("resync", f"the state record was damaged, so a {what} waits until the manager has answered our nonce")


def _believed(so_far: Received, situation: Situation) -> int:
    """What time it is by all that has come. An answer to our nonce is as old as the question at most: holding it back is vain."""
    if so_far.time is not None:
        answered = so_far.time.now + max(0, situation.tick - situation.asked)
        return max(answered, situation.now) if situation.sure and not so_far.anew else answered
    return situation.wall if so_far.anew else situation.now


def open_stream(trust: Trust, data: bytes) -> tuple[str, StreamList]:
    """(digest, list) of a stream list signed by the online role; raises Rejected."""
    root = current_root(trust)
    opened = envelope.open_sealed(data, "stream", root.keys_of("online"), root.roles["online"].threshold)
    if opened.fields.text("fleet") != trust.fleet:
        raise Rejected("wrong-fleet", "the stream list is of another fleet")
    return opened.digest, StreamList.parse(opened.fields)


def stream_named(digest: str, data: bytes) -> StreamList:
    """The list in a stream envelope that was verified when it came: believed because its payload has the digest an order names."""
    body, _ = envelope.split(data, "stream")
    if sha256(body) != digest:
        raise Rejected("bad-document", f"the kept stream list {digest[:12]} is damaged")
    return StreamList.parse(Fields.of(canonical.decode(body, "stream"), "stream"))


def _take_desired(so_far: Received, data: bytes, situation: Situation) -> Received:
    _check_sure(so_far.record, "desired document")
    trust, desired = accept_desired(so_far.record.trust, data, _believed(so_far, situation))
    known = {**situation.documents, **so_far.documents}
    record, commands = replace(so_far.record, trust=trust), list(so_far.commands)
    offers = [_offer(record, desired, name, wish, known, situation) for name, wish in desired.slots.items()]
    running = any(target.action == "run" and error is None for _, target, error in offers)
    leaving, full = _in_the_way(record, desired, running)
    offers += [(name, Target(desired.counter, "none"), None) for name in leaving]
    # What leaves makes room first; then whoever runs already, then `main`.
    offers.sort(key=lambda offer: (offer[1].action != "none", not _runs(record.slots.get(offer[0])), offer[0] != "main", offer[0]))
    for name, target, error in offers:
        slot = record.slots.get(name) or Slot()
        error = error or _crowded(record, name, target)
        slot, given = step(slot, Offered(target, situation.tick))
        if error is not None and slot.target == target:
            slot, ended = step(slot, Failed(slot.phase, target.order, situation.tick, error.reason, error.message, unfit=True))
            given = (*(command for command in given if not isinstance(command, Fetch)), *ended)
        record = record.with_slot(name, slot)
        commands += [(name, command) for command in given]
    forgotten = leaving if full else ()
    stay = {name: slot for name, slot in record.slots.items() if name in desired.slots or not (_idle(slot) or name in forgotten)}
    record = replace(record, slots=stay)
    if len(record.slots) > MAX_SLOTS:
        raise Rejected("too-many-slots", f"desired {desired.counter} would make {len(record.slots)} slots, {MAX_SLOTS} are known")
    return replace(so_far, record=record, commands=tuple(commands))


def _in_the_way(record: Record, desired: Desired, running: bool) -> tuple[tuple[str, ...], bool]:
    """(slots of an older epoch that this order does not name and has no room beside, whether that is for want of slots).

    Whoever held a stolen key may have filled every slot; orders of the new epoch must not have to know their names. Where slots
    are wanting they are forgotten with all they would report.
    """
    old = {name: slot for name, slot in record.slots.items() if name not in desired.slots and slot.order == 0}
    full = len(desired.slots.keys() | {name for name, slot in record.slots.items() if not _idle(slot)}) > MAX_SLOTS
    return tuple(name for name, slot in old.items() if full or (running and _runs(slot))), full


def _runs(slot: Slot | None) -> bool:
    """Whether the slot runs a model or is on the way to."""
    if slot is None or slot.current is not None:
        return slot is not None
    return slot.phase in WORKING and slot.target is not None and slot.target.action == "run"


def _idle(slot: Slot) -> bool:
    """Whether forgetting the slot would lose nothing."""
    return slot.phase == "idle" and not (slot.current or slot.previous or slot.outbox)


def _crowded(record: Record, name: str, target: Target) -> Unfit | None:
    """All slots would share one endpoint, so only one of them may run on this agent."""
    other = next((other for other, slot in record.slots.items() if other != name and _runs(slot)), None)
    if other is None or target.action != "run":
        return None
    return Unfit("one-slot", f"this agent runs one slot, and that is {other}; order {other} to hold nothing first")


def _offer(
    record: Record, desired: Desired, name: str, wish: SlotWish, known: Mapping[str, bytes], situation: Situation
) -> tuple[str, Target, Unfit | None]:
    """What the wish asks of the slot; raises Rejected (the whole document), returns Unfit (this slot only).

    Without the list of what is to be fetched the order would fail for good, so it is not taken: it comes again, with the list.
    """
    trust = record.trust
    if wish.action == "none":
        return name, Target(desired.counter, "none", wish.rollout), None
    if wish.release not in known:
        raise Rejected("missing-release", f"desired names release {wish.release[:12]}, which did not come with it")
    digest, release = accept_release(trust, known[wish.release])
    trial = wish.trial
    build = Build(
        wish.release, wish.variant, release.model, release.version, trial.memory_bytes, trial.load_ms, trial.call_ms, wish.stream
    )
    target = Target(
        desired.counter, wish.action, wish.rollout, build, trial.attempts, wish.stream, trial.window_s, trial.min_calls,
        trial.max_error_ppm, trial.max_latency_ratio_ppm, FETCH_S, WORK_S, conditions=wish.conditions,
    )  # fmt: skip
    try:
        variant = admit(trust, wish.release, wish.variant, digest, release, situation.device)
    except Unfit as error:
        return name, target, error
    slot = record.slots.get(name)
    if wish.stream in known:
        stream_named(wish.stream, known[wish.stream]).check_size(variant.size)
    elif wish.stream and not (slot and slot.current == build):
        raise Rejected("missing-stream", f"desired names stream {wish.stream[:12]}, which did not come with it")
    return name, replace(target, most_bytes=variant.size), None
