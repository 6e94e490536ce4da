"""What the device says of itself: the reported state of all slots."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from edgeops.wire.messages import OutcomeReport, SlotReport, State
from edgeops.wire.trust import versions

from ..core.ending import plain
from ..core.record import Record
from ..core.slot import Slot

Waits = Mapping[str, tuple[str, ...]]


def state(
    record: Record, boot: str, lively: Mapping[str, int], number: int = 0, waits: Waits = MappingProxyType({}),
    crashes: Mapping[str, str] = MappingProxyType({}),
) -> State:
    """The full reported state, numbered `number` (by default as the record says); `lively` are counters since this boot, `waits`
    the conditions that hold up each slot, `crashes` the last words of the worker that died there last.
    """
    slots = {name: report_of(slot, waits.get(name, ()), crashes.get(name, "")) for name, slot in record.slots.items()}
    trust, counters = record.trust, {**record.counters, **lively}
    return State(
        trust.fleet, trust.device, trust.incarnation, boot, number or record.report_seq, trust.counter, slots, counters,
        trust.command, tuple(outcome for name, slot in record.slots.items() for outcome in _outbox(name, slot)), versions(trust),
    )  # fmt: skip


def _outbox(name: str, slot: Slot) -> Iterator[OutcomeReport]:
    for one in slot.outbox:
        yield OutcomeReport(name, one.order, one.rollout, one.release, one.verdict, one.reason, one.detail)


def report_of(slot: Slot, waits: tuple[str, ...] = (), crash: str = "") -> SlotReport:
    """One slot: what is committed, what is being worked on (and which conditions it waits for), how the last order ended."""
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
        detail=(slot.failure[1] or _waiting(slot, waits))[:500] if working else (last.detail if last else ""),
        target=target.build.release if target and target.build else "",
        crash=plain(crash, 500),
    )


def _waiting(slot: Slot, waits: tuple[str, ...]) -> str:
    if waits:
        return f"waits for {', '.join(waits)}"
    return "waits for the others of its barrier" if slot.phase == "proven" and not slot.cleared else ""
