"""What changed between two records, told line by line: orders, phases, how orders ended. One place, whatever led to it."""

import time
from collections.abc import Iterator, Mapping

from ..core.slot import Build, Outcome, Slot, Target
from .journal import put, say
from .logline import Line, Value

GRAVE = {"rolled-back": "warn", "failed": "warn", "unfit": "warn"}


def tell(before: Mapping[str, Slot], after: Mapping[str, Slot]) -> None:
    """Say what happened to the slots; call it once the newer record is stored."""
    for line in changes(before, after, time.time()):
        put(line)


def changes(before: Mapping[str, Slot], after: Mapping[str, Slot], at: float) -> Iterator[Line]:
    """The lines about what happened between the two, at Unix second `at`."""
    for name in before.keys() - after.keys():
        yield Line(at, "info", "update", f"slot {name} is forgotten", {"slot": name, "phase": "gone"})
    for name, slot in after.items():
        old = before.get(name, Slot())
        if slot != old:
            yield from _order(name, old, slot, at)
            yield from _ends(name, old, slot, at)
            yield from _phase(name, old, slot, at)


def tell_build(slot: str, build: Build, what: str, level: str, event: str = "worker", **fields: Value) -> None:
    """Say something of a build that runs or does not."""
    say(event, f"slot {slot}: {_called(build)} {what}", level, slot=slot, model=build.model, version=build.version, **fields)


def _order(name: str, old: Slot, new: Slot, at: float) -> Iterator[Line]:
    target = new.target
    if target and new.order != old.order and new.order == target.order:
        wish = f"{target.action} {_called(target.build)}" if target.build else "hold nothing"
        text = f"slot {name}: order {target.order} to {wish}{_in(target.rollout)}"
        yield Line(at, "info", "order", text, _fields(name, target))


def _ends(name: str, old: Slot, new: Slot, at: float) -> Iterator[Line]:
    """Outcomes nobody has told yet; a raised epoch gives those that were the number 0."""
    anew = {Outcome(0, one.rollout, one.release, one.verdict, one.reason, one.detail) for one in old.outbox}
    for outcome in new.outbox:
        if outcome not in old.outbox and outcome not in anew:
            yield _end(name, old, new, outcome, at)


def _end(name: str, old: Slot, slot: Slot, outcome: Outcome, at: float) -> Line:
    builds = (slot.target.build if slot.target else None, slot.current, slot.previous, old.current)
    build = next((one for one in builds if one and one.release == outcome.release), None)
    why = f": {outcome.reason}, {outcome.detail}" if outcome.detail else f": {outcome.reason}" if outcome.reason else ""
    called = _called(build) if build else outcome.release[:12] or f"order {outcome.order}"
    fields: dict[str, Value] = {
        "slot": name, "order": outcome.order, "rollout": outcome.rollout, "release": outcome.release, "verdict": outcome.verdict,
        "reason": outcome.reason, "runs": _called(slot.current), "phase": slot.phase,
    }  # fmt: skip
    text = f"slot {name}: {called} {outcome.verdict}{_in(outcome.rollout)}{why}; runs {_called(slot.current)}"
    return Line(at, GRAVE.get(outcome.verdict, "info"), "update", text, fields)


def _phase(name: str, old: Slot, new: Slot, at: float) -> Iterator[Line]:
    target, reason = new.target, new.failure[0]
    if new.phase in (old.phase, "idle") or target is None:
        return
    more: dict[str, Value] = {"phase": new.phase, "was": old.phase, "attempts": new.attempts, "reason": reason}
    text = f"slot {name}: {_called(target.build)} {new.phase}" + (f" ({reason})" if reason else "")
    yield Line(at, "warn" if reason else "info", "update", text, {**_fields(name, target), **more})


def _fields(name: str, target: Target) -> dict[str, Value]:
    build = target.build
    told: dict[str, Value] = {"slot": name, "order": target.order, "rollout": target.rollout, "action": target.action}
    if build:
        told |= {"model": build.model, "version": build.version, "variant": build.variant, "release": build.release}
    return told


def _called(build: Build | None) -> str:
    return f"{build.model}:{build.version}" if build else "no model"


def _in(rollout: str) -> str:
    return f" ({rollout})" if rollout else ""
