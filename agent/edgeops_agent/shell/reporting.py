"""What the device says of itself: the reported state of all slots."""

from collections.abc import Iterator, Mapping

from edgeops.wire.messages import OutcomeReport, SlotReport, State
from edgeops.wire.trust import versions

from ..core.record import Record
from ..core.slot import Slot


def state(record: Record, boot: str, lively: Mapping[str, int], number: int = 0) -> State:
    """The full reported state, numbered `number` (by default as the record says); `lively` are counters since this boot."""
    slots = {name: report_of(slot) for name, slot in record.slots.items()}
    trust, counters = record.trust, {**record.counters, **lively}
    return State(
        trust.fleet, trust.device, trust.incarnation, boot, number or record.report_seq, trust.counter, slots, counters,
        trust.command, tuple(outcome for name, slot in record.slots.items() for outcome in _outbox(name, slot)), versions(trust),
    )  # fmt: skip


def _outbox(name: str, slot: Slot) -> Iterator[OutcomeReport]:
    for one in slot.outbox:
        yield OutcomeReport(name, one.order, one.rollout, one.release, one.verdict, one.reason, one.detail)


def report_of(slot: Slot) -> SlotReport:
    """One slot: what is committed, what is being worked on, how the last order ended."""
    current, target, last = slot.current, slot.target, slot.last
    working = slot.phase != "idle" and target is not None
    return SlotReport(
        phase=slot.phase,
        model=current.model if current else "",
        version=current.version if current else 0,
        release=current.release if current else "",
        variant=current.variant if current else "",
        rollout=target.rollout if working and target else (last.rollout if last else ""),
        verdict="" if working else (last.verdict if last else ""),
        reason=slot.failure[0] if working else (last.reason if last else ""),
        detail=slot.failure[1][:500] if working else (last.detail if last else ""),
        target=target.build.release if target and target.build else "",
    )
