"""The update machine of one slot: `step(slot, event) -> (slot, commands)`, total and pure.

    idle -> [waiting] -> fetch -> verify -> install -> [ready] -> trial -> [proven] -> idle (committed)
               any failure, deadline or newer order -> [rollback] -> idle (rolled-back | failed | unfit | cancelled)

The phases in brackets are passed over where nothing is to be waited for. docs/update-machine.md draws what this file does.

Laws, each held by the crash harness (tests/crash):
1. Save, then act: the caller stores the returned slot before it carries out a command.
2. Commands are idempotent.
3. One commit point: a passed trial sets `current`; nothing else ever does, but a local fall-back to `previous`.
4. After a restart no bytes are believed: work starts over at `fetch`, which checks what is there.
5. A crash-loop bound: `attempts` restarts that the target could have caused, MAX_RESTARTS of any kind, then it has failed.
6. Outcomes wait in `outbox` until acknowledged.
7. Recovery is this same function fed `Restarted`.
8. Every phase but idle has a deadline with a named outcome.
9. What a gate waits for must hold: nothing is fetched, tried or committed while a condition for it is known not to.
Events that do not fit (late, duplicate, of an older order) change nothing.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from edgeops.wire.conditions import CONSENT, about, unmet

from .ending import blame, end, mark, plain, tell
from .slot import (
    WORKING,
    Acked,
    Build,
    Cleared,
    Command,
    Discard,
    Done,
    Event,
    Failed,
    Fetch,
    Install,
    Lost,
    Offered,
    Outcome,
    Report,
    Restarted,
    Run,
    Sense,
    Sensed,
    Slot,
    Stopped,
    Target,
    Tick,
    Try,
    Verify,
    Voided,
    WakeAt,
)

Step = tuple[Slot, tuple[Command, ...]]
MAX_RESTARTS = 100

WORK: dict[str, Callable[[Target], Command]] = {
    "waiting": lambda target: Sense(), "fetch": Fetch, "verify": Verify, "install": Install, "ready": lambda target: Sense(),
    "trial": Try, "proven": lambda target: Sense(),
}  # fmt: skip
"""What is done in each phase; repeating it is safe."""

BOUNDS: dict[str, Callable[[Target], int]] = {
    "waiting": lambda target: target.conditions.wait_s,
    "fetch": lambda target: target.fetch_s + (target.conditions.wait_s if target.conditions.fetch else 0),
    "verify": lambda target: target.work_s, "install": lambda target: target.work_s,
    "ready": lambda target: target.conditions.wait_s, "trial": lambda target: target.trial_s + target.work_s,
    "proven": lambda target: target.conditions.commit_s,
}  # fmt: skip
"""How long a phase may take, seconds; a fetch with the waiting before it and in between, so that nothing puts it off for ever."""

UNTOUCHED = ("waiting", "fetch", "verify", "ready")
"""Here a failure has nothing to undo, and says nothing of the build."""

BLAMELESS = ("waiting", "fetch", "ready")
"""Here the target has not run yet, so that it cannot be why the device restarted."""


def step(slot: Slot, event: Event) -> Step:
    """The next state and the commands to carry out once it is stored."""
    react = REACTIONS[type(event)]
    return react(slot, event)


def keep(slot: Slot) -> tuple[Build, ...]:
    """The builds whose objects must stay on disk."""
    wanted = slot.target.build if slot.target and slot.phase in WORKING and slot.phase != "rollback" else None
    return tuple(dict.fromkeys(build for build in (slot.current, slot.previous, wanted) if build))


# -- orders


def _offered(slot: Slot, event: Offered) -> Step:
    target = event.target
    if target.order <= slot.order:
        return slot, ()
    if slot.phase not in WORKING or slot.target is None:
        return _begin(replace(slot, order=target.order), target, event.now)
    if slot.phase == "rollback" or not _goes_on(slot.phase, slot.target, target):
        return _cancel_for(slot, target, event.now)
    if replace(target, order=slot.target.order) == slot.target:
        return replace(slot, order=target.order), ()  # the work goes on, and what comes of it answers this order too
    again = replace(slot, order=target.order, target=target, cleared=False)
    if slot.phase in ("waiting", "fetch"):
        return _get(again, target, event.now)
    return _enter(again, target, slot.phase, event.now)


def _goes_on(phase: str, old: Target, new: Target) -> bool:
    """Whether what is being done for the old order serves the new one."""
    same = (old.build, old.rollout) == (new.build, new.rollout)
    return same and (old.action == new.action or phase in ("waiting", "fetch", "verify"))


def _cancel_for(slot: Slot, target: Target, now: int) -> Step:
    """A newer order: end the one at hand as cancelled (or with the failure it already has), then begin anew."""
    ended = _cancel(slot)
    begun, commands = _begin(replace(ended, order=target.order), target, now)
    return begun, (Run(ended.current), Discard(keep(begun)), *commands)


def _cancel(slot: Slot) -> Slot:
    return end(slot, "rolled-back" if slot.phase == "rollback" else "cancelled", *slot.failure)


def _begin(slot: Slot, target: Target, now: int) -> Step:
    if target.build is None:
        emptied = replace(slot, phase="idle", target=target, current=None, previous=None, failure=("", ""))
        ended = end(emptied, "removed")
        return ended, (Run(None), Discard(keep(ended)), Report())
    slot = replace(slot, target=target, failure=("", ""))
    if target.build == slot.current and target.action == "run":
        return _end(slot, "committed-unproven" if slot.untried else "committed")
    if mark(target) in slot.bad:
        return _end(slot, "rolled-back", "known-bad", "this release already failed here in this rollout")
    return _get(replace(slot, attempts=0, restarts=0), target, now)


def _get(slot: Slot, target: Target, now: int) -> Step:
    return _enter(slot, target, "waiting" if target.conditions.fetch else "fetch", now)


def _enter(slot: Slot, target: Target, phase: str, now: int) -> Step:
    begun = replace(slot, until=now + BOUNDS["fetch"](target)) if phase in ("waiting", "fetch") else slot
    return _until(begun, target, phase, now + BOUNDS[phase](target))


def _until(slot: Slot, target: Target, phase: str, deadline: int) -> Step:
    entered = replace(slot, phase=phase, deadline=deadline)
    return entered, (WORK[phase](target), WakeAt(deadline), Report())


# -- answers


def _done(slot: Slot, event: Done) -> Step:
    target = slot.target
    if target is None or slot.phase != event.phase or target.order != event.order:
        return slot, ()
    match slot.phase:
        case "fetch":
            return _enter(slot, target, "verify", event.now)
        case "verify" if target.action == "prefetch":
            return _end(slot, "prefetched")
        case "verify":
            return _enter(slot, target, "install", event.now)
        case "install" if target.conditions.activate:
            return _enter(slot, target, "ready", event.now)
        case "install":
            return _enter(slot, target, "trial", event.now)
        case "trial" if target.conditions.commit or target.conditions.barrier:
            passed = replace(slot, unproven=event.unproven)
            return _enter(passed, target, "proven", event.now)
        case "trial":
            return _commit(slot, target, event.unproven)
        case "rollback":
            return _gone_back(slot)
    return slot, ()


def _commit(slot: Slot, target: Target, unproven: bool) -> Step:
    previous = slot.current if slot.current != target.build else slot.previous
    committed = replace(slot, current=target.build, previous=previous, untried=unproven)
    ended = end(committed, "committed-unproven" if unproven else "committed")
    return ended, (Run(ended.current), Discard(keep(ended)), Report())


def _sensed(slot: Slot, event: Sensed) -> Step:
    target = slot.target
    if target is None or slot.phase not in ("waiting", "fetch", "ready", "proven"):
        return slot, ()
    terms = target.gate(slot.phase)
    missing = unmet(terms, event.facts)
    if about(terms, CONSENT) and event.facts.get(CONSENT) == "no":
        return _fall_back(slot, target, event.now, "denied", "somebody at the device said no")
    if slot.phase == "fetch":
        wait = min(event.now + target.conditions.wait_s, slot.until)
        return _until(slot, target, "waiting", wait) if missing else (slot, ())
    if missing or (slot.phase == "proven" and target.conditions.barrier and not slot.cleared):
        return slot, ()
    if slot.phase == "waiting":
        return _until(slot, target, "fetch", slot.until)
    return _enter(slot, target, "trial", event.now) if slot.phase == "ready" else _commit(slot, target, slot.unproven)


def _cleared(slot: Slot, event: Cleared) -> Step:
    target = slot.target
    if target is None or slot.phase != "proven" or slot.cleared or target.order > event.order:
        return slot, ()
    cleared = replace(slot, cleared=True)
    return (cleared, (Sense(),)) if target.conditions.commit else _commit(cleared, target, cleared.unproven)


def _failed(slot: Slot, event: Failed) -> Step:
    target = slot.target
    if target is None or slot.phase != event.phase or target.order != event.order or slot.phase == "idle":
        return slot, ()
    if event.unfit and slot.phase in UNTOUCHED:
        return _end(slot, "unfit", event.reason, event.detail)
    if event.reason == "bad-object" and slot.phase == "verify" and slot.attempts < target.attempts:
        return _get(replace(slot, attempts=slot.attempts + 1), target, event.now)  # what the disk has spoiled comes once more
    return _fall_back(slot, target, event.now, event.reason, event.detail)


def _fall_back(slot: Slot, target: Target, now: int, reason: str, detail: str = "") -> Step:
    """Before the trial nothing has changed, so the order just fails; in trial the old build must take the calls again."""
    if slot.phase in UNTOUCHED:
        ended, commands = _end(slot, "failed", reason, detail)
        return ended, (Discard(keep(ended)), *commands)
    failure = (plain(reason, 64), plain(detail, 500))
    back = replace(slot, phase="rollback", failure=failure, bad=blame(slot, target), deadline=now + target.work_s)
    if slot.phase == "rollback":
        return _gone_back(slot)
    return back, (Run(slot.current), WakeAt(back.deadline), Report())


def _lost(slot: Slot, event: Lost) -> Step:
    """What ran cannot: go back to `previous`, or to no model at all, and say so. It is not tried again under the same order unless
    its bytes were damaged. What has passed its trial but not committed goes the way of a failed trial; a candidate beside it is
    no worse for it.
    """
    target = slot.target
    if target and target.build and slot.phase == "proven" and target.build.release == event.release:
        return _fall_back(slot, target, event.now, event.reason, "it could not go on running until it was to commit")
    if slot.current is None or slot.current.release != event.release:
        return slot, ()
    ordered = target is not None and target.build == slot.current and slot.previous is not None
    bad = blame(slot, target, event.reason) if target and ordered else slot.bad
    fallen = replace(slot, current=slot.previous, previous=None, bad=bad, untried=True)
    outcome = Outcome(slot.order, "", event.release, "failed", event.reason, "the committed model could not run")
    told = tell(fallen, outcome)
    if slot.phase == "proven" or (slot.phase == "trial" and fallen.current is None):
        return told, (Report(),)
    begun, commands = _enter(told, target, "trial", event.now) if target and slot.phase == "trial" else (told, (Report(),))
    return begun, (Run(fallen.current), *commands)


def _restarted(slot: Slot, event: Restarted) -> Step:
    run = Run(slot.current)
    target = slot.target
    if target is None or slot.phase == "idle":
        return slot, (run, Report())
    if slot.phase == "rollback":
        return replace(slot, deadline=event.now + target.work_s), (run, WakeAt(event.now + target.work_s), Report())
    blamed = slot.phase not in BLAMELESS and not slot.calm
    again = replace(slot, attempts=slot.attempts + blamed, restarts=slot.restarts + 1, unproven=False, cleared=False, calm=False)
    if again.attempts > target.attempts or again.restarts > MAX_RESTARTS:
        ended, commands = _fall_back(again, target, event.now, "crash-loop", f"{slot.restarts} restarts, the last in {slot.phase}")
        return ended, (run, *commands)
    # What had been fetched is looked at, and fetched again only where it is damaged.
    fetched = slot.phase not in ("waiting", "fetch")
    begun, commands = _enter(again, target, "fetch", event.now) if fetched else _get(again, target, event.now)
    return begun, (run, *commands)


def _stopped(slot: Slot, event: Stopped) -> Step:
    return replace(slot, calm=slot.phase in WORKING), ()


def _tick(slot: Slot, event: Tick) -> Step:
    target = slot.target
    if target is None or slot.phase == "idle" or event.now < slot.deadline:
        return slot, ()
    if slot.phase == "rollback":
        return _gone_back(slot)
    waited = ", ".join(target.gate(slot.phase)) or ("the barrier" if slot.phase == "proven" else "")
    why = f"waited in vain for {waited}" if waited else f"not done within the time allowed for {slot.phase}"
    return _fall_back(slot, target, event.now, f"{slot.phase}-deadline", why)


def _acked(slot: Slot, event: Acked) -> Step:
    return replace(slot, outbox=tuple(outcome for outcome in slot.outbox if not 0 <= outcome.after < event.report)), ()


def _voided(slot: Slot, event: Voided) -> Step:
    """Open to any order, however low its number; what runs goes on, what is being worked on ends, nothing is known to be bad.

    Its outcomes are older than any there will be, whatever number they had.
    """
    working = slot.phase in WORKING
    ended = _cancel(slot) if working else slot
    anew = replace(ended, order=0, bad=(), outbox=tuple(replace(outcome, order=0) for outcome in ended.outbox))
    return anew, (Run(anew.current), Discard(keep(anew)), Report()) if working else ()


def _gone_back(slot: Slot) -> Step:
    """The old build takes the calls again; what the other one left is not needed any more."""
    ended, commands = _end(slot, "rolled-back" if slot.failure[0] else "cancelled", *slot.failure)
    return ended, (Discard(keep(ended)), *commands)


def _end(slot: Slot, verdict: str, reason: str = "", detail: str = "") -> Step:
    return end(slot, verdict, reason, detail), (Report(),)


REACTIONS: dict[type, Callable[[Slot, Any], Step]] = {
    Offered: _offered,
    Done: _done,
    Failed: _failed,
    Lost: _lost,
    Restarted: _restarted,
    Stopped: _stopped,
    Acked: _acked,
    Tick: _tick,
    Sensed: _sensed,
    Cleared: _cleared,
    Voided: _voided,
}
