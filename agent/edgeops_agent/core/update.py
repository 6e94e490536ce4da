"""The update machine of one slot: `step(slot, event) -> (slot, commands)`, total and pure.

    idle -> fetch -> verify -> install -> trial -> idle (committed)
               any failure, deadline or newer order -> rollback -> idle (rolled-back | failed | unfit | cancelled)

Laws, each held by the crash harness (tests/crash):
1. Save, then act: the caller stores the returned slot before it carries out a command.
2. Commands are idempotent.
3. One commit point: a passed trial sets `current`; nothing else ever does, but a local fall-back to `previous`.
4. After a restart no bytes are believed: work starts over at `fetch`, which checks what is there.
5. A crash-loop bound: `attempts` restarts while working on a target, then rollback.
6. Outcomes wait in `outbox` until acknowledged.
7. Recovery is this same function fed `Restarted`.
8. Every phase but idle has a deadline with a named outcome.
Events that do not fit (late, duplicate, of an older order) change nothing.
"""

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .slot import (
    MAX_BAD,
    MAX_OUTBOX,
    WORKING,
    Acked,
    Build,
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
    Slot,
    Target,
    Tick,
    Try,
    Verify,
    Voided,
    WakeAt,
)

Step = tuple[Slot, tuple[Command, ...]]

# phase -> (next phase, command of that next phase); trial and rollback end in idle instead.
NEXT: dict[str, tuple[str, Callable[[Target], Command]]] = {
    "fetch": ("verify", Verify),
    "verify": ("install", Install),
    "install": ("trial", Try),
}


WORK: dict[str, Callable[[Target], Command]] = {"fetch": Fetch, **dict(NEXT.values())}


def step(slot: Slot, event: Event) -> Step:
    """The next state and the commands to carry out once it is stored."""
    react = REACTIONS[type(event)]
    return react(slot, event)


def keep(slot: Slot) -> tuple[Build, ...]:
    """The builds whose objects must stay on disk."""
    wanted = slot.target.build if slot.target and slot.phase in WORKING and slot.phase != "rollback" else None
    return tuple(dict.fromkeys(build for build in (slot.current, slot.previous, wanted) if build))


def _offered(slot: Slot, event: Offered) -> Step:
    target = event.target
    if target.order <= slot.order:
        return slot, ()
    slot = replace(slot, order=target.order)
    if slot.phase in WORKING and slot.target is not None:
        if slot.target.build == target.build and slot.phase != "rollback" and slot.target.rollout == target.rollout:
            # The same build under a newer order: ask again, so that answers carry the order we now wait for.
            return replace(slot, target=target), (WORK[slot.phase](target), WakeAt(slot.deadline))
        return _cancel_for(slot, target, event.now)
    return _begin(slot, target, event.now)


def _cancel_for(slot: Slot, target: Target, now: int) -> Step:
    """A newer order: end the one at hand as cancelled (or with the failure it already has), then begin anew."""
    ended = _cancel(slot)
    begun, commands = _begin(ended, target, now)
    return begun, (Run(ended.current), *commands)


def _cancel(slot: Slot) -> Slot:
    ended, _ = _end(slot, "rolled-back" if slot.phase == "rollback" else "cancelled", *slot.failure)
    return ended


def _begin(slot: Slot, target: Target, now: int) -> Step:
    if target.build is None:
        emptied = replace(slot, phase="idle", target=target, current=None, previous=None, failure=("", ""))
        ended, _ = _end(emptied, "removed")
        return ended, (Run(None), Discard(keep(ended)), Report())
    slot = replace(slot, target=target, failure=("", ""))
    if target.build == slot.current and target.action == "run":
        ended, commands = _end(slot, "committed")
        return ended, commands
    if _mark(target) in slot.bad:
        return _end(slot, "rolled-back", "known-bad", "this release already failed here in this rollout")
    begun = replace(slot, phase="fetch", attempts=0, deadline=now + target.fetch_s)
    return begun, (Fetch(target), WakeAt(begun.deadline), Report())


def _done(slot: Slot, event: Done) -> Step:
    target = slot.target
    if target is None or slot.phase != event.phase or target.order != event.order:
        return slot, ()
    if slot.phase == "trial":
        return _commit(slot, target, event.unproven)
    if slot.phase == "rollback":
        return _end(slot, "rolled-back" if slot.failure[0] else "cancelled", *slot.failure)
    if slot.phase == "verify" and target.action == "prefetch":
        return _end(slot, "prefetched")
    phase, command = NEXT[slot.phase]
    seconds = target.trial_s + target.work_s if phase == "trial" else target.work_s
    moved = replace(slot, phase=phase, deadline=event.now + seconds)
    return moved, (command(target), WakeAt(moved.deadline), Report())


def _commit(slot: Slot, target: Target, unproven: bool) -> Step:
    previous = slot.current if slot.current != target.build else slot.previous
    committed = replace(slot, current=target.build, previous=previous)
    ended, _ = _end(committed, "committed-unproven" if unproven else "committed")
    return ended, (Discard(keep(ended)), Report())


def _failed(slot: Slot, event: Failed) -> Step:
    target = slot.target
    if target is None or slot.phase != event.phase or target.order != event.order or slot.phase == "idle":
        return slot, ()
    if event.unfit:
        return _end(slot, "unfit", event.reason, event.detail)
    return _fall_back(slot, target, event.now, event.reason, event.detail)


def _fall_back(slot: Slot, target: Target, now: int, reason: str, detail: str = "") -> Step:
    """Before the trial nothing has changed, so the order just fails; in trial the old build must take the calls again."""
    if slot.phase in ("fetch", "verify"):
        ended, commands = _end(slot, "failed", reason, detail)
        return ended, (Discard(keep(ended)), *commands)
    bad = (*(mark for mark in slot.bad if mark != _mark(target)), _mark(target))[-MAX_BAD:]
    back = replace(slot, phase="rollback", failure=(_plain(reason, 64), _plain(detail, 500)), bad=bad, deadline=now + target.work_s)
    if slot.phase == "rollback":
        ended, commands = _end(slot, "rolled-back", *slot.failure)
        return ended, commands
    return back, (Run(slot.current), WakeAt(back.deadline), Report())


def _lost(slot: Slot, event: Lost) -> Step:
    """What ran is damaged: go back to `previous`, or to no model at all, and say so."""
    if slot.current is None or slot.current.release != event.release:
        return slot, ()
    fallen = replace(slot, current=slot.previous, previous=None)
    outcome = Outcome(slot.order, "", event.release, "failed", event.reason, "the committed model could not run")
    fallen = replace(fallen, outbox=(*fallen.outbox, outcome)[-MAX_OUTBOX:], last=outcome)
    return fallen, (Run(fallen.current), Report())


def _restarted(slot: Slot, event: Restarted) -> Step:
    run = Run(slot.current)
    target = slot.target
    if target is None or slot.phase == "idle":
        return slot, (run, Report())
    if slot.phase == "rollback":
        return replace(slot, deadline=event.now + target.work_s), (run, WakeAt(event.now + target.work_s), Report())
    again = replace(slot, attempts=slot.attempts + 1)
    if again.attempts > target.attempts:
        ended, commands = _fall_back(again, target, event.now, "crash-loop", f"{slot.attempts} restarts in {slot.phase}")
        return ended, (run, *commands)
    begun = replace(again, phase="fetch", deadline=event.now + target.fetch_s)
    return begun, (run, Fetch(target), WakeAt(begun.deadline), Report())


def _tick(slot: Slot, event: Tick) -> Step:
    target = slot.target
    if target is None or slot.phase == "idle" or event.now < slot.deadline:
        return slot, ()
    if slot.phase == "rollback":
        return _end(slot, "rolled-back", *slot.failure)
    return _fall_back(slot, target, event.now, f"{slot.phase}-deadline", f"not done within the time allowed for {slot.phase}")


def _acked(slot: Slot, event: Acked) -> Step:
    return replace(slot, outbox=tuple(outcome for outcome in slot.outbox if outcome.order > event.order)), ()


def _voided(slot: Slot, event: Voided) -> Step:
    """Open to any order, however low its number; what runs goes on, what is being worked on ends, nothing is known to be bad.

    Its outcomes go with the next acknowledgement, whatever number they had.
    """
    working = slot.phase in WORKING
    ended = _cancel(slot) if working else slot
    anew = replace(ended, order=0, bad=(), outbox=tuple(replace(outcome, order=0) for outcome in ended.outbox))
    return anew, (Run(anew.current), Discard(keep(anew)), Report()) if working else ()


def _end(slot: Slot, verdict: str, reason: str = "", detail: str = "") -> Step:
    """Back to idle with an outcome in the outbox."""
    target = slot.target
    if target is None:
        return slot, ()
    release = target.build.release if target.build else ""
    outcome = Outcome(target.order, target.rollout, release, verdict, _plain(reason, 64), _plain(detail, 500))
    ended = replace(
        slot, phase="idle", attempts=0, deadline=0, failure=("", ""), last=outcome, outbox=(*slot.outbox, outcome)[-MAX_OUTBOX:]
    )
    return ended, (Report(),)


def _plain(text: str, most: int) -> str:
    """What a worker may have had a hand in, as a record can hold it: NFC, printable, at most so many bytes."""
    shown = "".join(one if one.isprintable() else " " for one in unicodedata.normalize("NFC", text[:most]))
    return shown.encode()[:most].decode(errors="ignore")


def _mark(target: Target) -> str:
    return f"{target.build.release if target.build else ''}/{target.rollout}"


REACTIONS: dict[type, Callable[[Slot, Any], Step]] = {
    Offered: _offered,
    Done: _done,
    Failed: _failed,
    Lost: _lost,
    Restarted: _restarted,
    Acked: _acked,
    Tick: _tick,
    Voided: _voided,
}
