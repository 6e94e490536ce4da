"""The rollout engine: `step(rollout, event) -> (rollout, commands)`, total and pure.

Laws: the denominator is started devices; offline devices never block; a wave opens only after the one before passed; a wave
that missed its fraction stops the rollout; a halted rollout opens nothing until an operator resumes it. Late or repeated device
events change counters at most, operator events out of place raise `Misuse`.

Laws of a barrier: its wave is let commit once, when every one of its devices is ready and the first is not about to give up; where
one is lost before, or time is, or the rollout stops for whatever reason, nobody is: the whole wave is recalled, for good. Where one
has gone back all the same after the decision, the others are recalled. No wave opens after one that is undecided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from edgeops.rollout import barrier
from edgeops.rollout.gates import hard_stop, is_met, wave_gate
from edgeops.rollout.state import (
    Aborted,
    Advanced,
    Audit,
    Commands,
    CommitWave,
    DeviceStarted,
    Event,
    Notify,
    OpenWave,
    OperatorEvent,
    Outcome,
    Passed,
    Paused,
    Proven,
    Recall,
    Relapsed,
    Resumed,
    Reverted,
    Rollout,
    Silence,
    Started,
    Stop,
    Tick,
    Tripped,
    WakeAt,
    WaveCount,
)
from edgeops.rollout.tally import remember, settle, unsettle
from edgeops.rollout.transitions import TRANSITIONS, check, word_of
from edgeops.wire.errors import Misuse

Step = tuple[Rollout, Commands]

def step(rollout: Rollout, event: Event) -> Step:
    """Apply one event. Raises `Misuse` for operator events only (no-targets, see `transitions.check`); time never runs back."""
    before = rollout.wake
    r = replace(rollout, now=max(rollout.now, event.now))
    if isinstance(event, Started | Paused | Resumed | Advanced | Aborted):
        r, commands = _operate(r, event)
    else:
        r, commands = _observe(r, event)
    r, more = _judge(r)
    r = replace(r, wake=_next_wake(r))
    if r.status == "halted":
        commands = tuple(c for c in commands if not isinstance(c, OpenWave))
    wake = () if r.wake is None or r.wake == before else (WakeAt(r.wake),)
    return r, commands + more + wake


def _operate(r: Rollout, event: OperatorEvent) -> Step:
    word = word_of(event)
    check(r, word)
    r, commands = _OPERATIONS[word](r, event)
    said = Audit(f"{event.who}: {word} rollout {r.plan.rollout_id} of {r.plan.model} v{r.plan.version}")
    return r, (said, *commands)


def _start(r: Rollout, event: OperatorEvent) -> Step:
    targets = event.targets if isinstance(event, Started) else 0
    if targets <= 0:
        raise Misuse("no-targets", f"rollout {r.plan.rollout_id} matches no device: check its selector with `edgeops device list`")
    reaches = r.plan.reaches(targets)
    sizes = (b - a for a, b in zip((0, *reaches), reaches, strict=False))
    waves = tuple(WaveCount(size=size, up_to=up_to) for size, up_to in zip(sizes, reaches, strict=True))
    r = replace(_move(r, "start"), targets=targets, waves=waves, deadline=r.now + r.plan.policy.rollout_deadline_s)
    return _open_next(r)


def _pause(r: Rollout, event: OperatorEvent) -> Step:
    return replace(_move(r, "pause"), paused_at=r.now, why="paused by an operator"), (Stop("paused"),)


def _resume(r: Rollout, event: OperatorEvent) -> Step:
    halted = r.status == "halted"
    r = _acknowledge(r) if halted else _shift_timers(r)
    r = replace(_move(r, "resume"), why="", paused_at=None)
    return r, (OpenWave(r.current, r.wave.up_to),)


def _advance(r: Rollout, event: OperatorEvent) -> Step:
    return _pass(r, "forced", "ended by an operator")


def _abort_keep(r: Rollout, event: OperatorEvent) -> Step:
    r, back = _call_off(r)
    r = replace(_move(r, "abort-keep"), why="aborted, devices keep what they run")
    return r, (Stop("aborted"), *back, Notify("rollout-aborted", _line(r, r.why)))


def _abort_revert(r: Rollout, event: OperatorEvent) -> Step:
    if r.current < 0:
        r = replace(_move(r, "abort-revert"), status="aborted", why="aborted before any device had it")
        return r, (Notify("rollout-aborted", _line(r, r.why)),)
    due = r.now + r.plan.policy.wave_timeout_s
    r, _ = _call_off(r)
    r = replace(_move(r, "abort-revert"), why="taking the release back", recall_deadline=due)
    back = Recall(r.plan.previous, r.current)
    return r, (Stop("aborted"), back, Notify("rollout-reverting", _line(r, r.why)))


_OPERATIONS: Mapping[str, Callable[[Rollout, OperatorEvent], Step]] = MappingProxyType(
    {
        "start": _start,
        "pause": _pause,
        "resume": _resume,
        "advance": _advance,
        "abort-keep": _abort_keep,
        "abort-revert": _abort_revert,
    }
)


def _observe(r: Rollout, event: Event) -> Step:
    if isinstance(event, Tick):
        return replace(r, waiting=max(0, event.waiting)), ()
    if isinstance(event, Tripped):
        can = (r.status, "trip") in TRANSITIONS
        return _halt(r, f"{event.gate}: {event.text}") if can else (r, ())
    if isinstance(event, Reverted):
        recalled = r.status in ("reverting", "aborted") or any(wave.decision == "back" for wave in r.waves)
        return (replace(r, reverted=r.reverted + max(0, event.n)) if recalled else r), ()
    if not isinstance(event, DeviceStarted | Outcome | Relapsed | Silence | Proven) or not 0 <= event.wave <= r.current:
        return r, ()
    wave = r.waves[event.wave]
    if isinstance(event, DeviceStarted):
        return _put(r, event.wave, replace(wave, started=wave.started + max(0, event.n))), ()
    if isinstance(event, Proven):
        return _put(r, event.wave, replace(wave, proven=min(max(0, event.n), wave.in_flight), commit_by=event.by)), ()
    if isinstance(event, Silence):
        return _hear_silence(r, event, wave)
    if isinstance(event, Relapsed):
        wave, event = unsettle(wave, event.was), Outcome(event.now, event.wave, "failed", event.reason)
    return replace(_put(r, event.wave, settle(wave, event.verdict)), reasons=remember(r.reasons, event)), ()


def _hear_silence(r: Rollout, event: Silence, wave: WaveCount) -> Step:
    unknown = min(max(0, event.n), wave.in_flight)
    r = _put(r, event.wave, replace(wave, unknown=unknown))
    if unknown <= wave.unknown:
        return r, ()
    text = f"{unknown} devices of wave {event.wave + 1} are silent since they switched to the release"
    return r, (Notify("devices-silent", _line(r, text)),)


def _judge(r: Rollout) -> Step:
    if r.status == "reverting":
        return _watch_recall(r)
    r, commands = _heed_barriers(r)
    if r.status in ("running", "paused") and (why := hard_stop(r)):
        r, more = _halt(r, why)
        return r, commands + more
    while r.status == "running":
        if r.deadline is not None and r.now >= r.deadline:
            r, more = _halt(r, "rollout-deadline: the rollout took longer than rollout_deadline_s")
            return r, commands + more
        r = _mark_met(r)
        say, text = wave_gate(r)
        if say == "wait":
            break
        if say == "halt":
            r, more = _halt(r, text)
        else:
            how: Passed = "unjudged" if say == "pass-unjudged" else "earned" if r.wave.started else "empty"
            r, more = _pass(r, how, text)
        commands += more
    return r, commands


def _heed_barriers(r: Rollout) -> Step:
    """Take back what went apart after its decision, then decide on the open wave."""
    commands: Commands = ()
    for index in barrier.split(r):
        why = f"barrier-split: a device of wave {index + 1} went back though all were let commit; the others are taken back"
        r = _put(r, index, replace(r.waves[index], decision="back"))
        commands += (Recall(r.plan.previous, index, index),)
        if (r.status, "trip") in TRANSITIONS:
            r, more = _halt(r, why)
        else:
            r, more = replace(r, why=why), (Audit(_line(r, why)), Notify("barrier-split", _line(r, why)))
        commands += more
    if r.status not in ("running", "paused") or not barrier.is_undecided(r):
        return r, commands
    fate, why = barrier.judge(r)
    if fate == "wait":
        return r, commands
    if fate == "back":
        return _halt(r, why)
    due = max(r.wave.deadline or 0, r.now + r.plan.conditions.commit_s)  # the word has to arrive
    r = _put(r, r.current, replace(r.wave, decision="commit", deadline=due))
    return r, (Audit(_line(r, f"wave {r.current + 1} of {len(r.waves)}: {why}")), CommitWave(r.current))


def _call_off(r: Rollout) -> Step:
    """Nobody commits at a barrier that is given up undecided: whoever is at work there is given back what it had."""
    if not barrier.is_undecided(r):
        return r, ()
    return _put(r, r.current, replace(r.wave, decision="back")), (Recall(r.plan.previous, r.current, r.current),)


def _mark_met(r: Rollout) -> Rollout:
    met_at = (r.wave.met_at if r.wave.met_at is not None else r.now) if is_met(r) else None
    return _put(r, r.current, replace(r.wave, met_at=met_at))


def _watch_recall(r: Rollout) -> Step:
    open_ones = r.to_revert - r.reverted
    late = r.recall_deadline is not None and r.now >= r.recall_deadline
    if open_ones > 0 and not late:
        return r, ()
    why = "taken back" if open_ones <= 0 else f"taken back; {open_ones} devices will follow when they answer again"
    r = replace(_move(r, "reverted"), why=why, recall_deadline=None)
    return r, (Audit(_line(r, why)), Notify("rollout-aborted", _line(r, why)))


def _halt(r: Rollout, why: str) -> Step:
    r, back = _call_off(r)
    r = replace(_move(r, "trip"), why=why, paused_at=None)
    text = _line(r, f"halted: {why}")
    return r, (Stop(why), *back, Audit(text), Notify("rollout-halted", text))


def _pass(r: Rollout, how: Passed, text: str) -> Step:
    r = _put(r, r.current, replace(r.wave, passed=how))
    said = _line(r, f"wave {r.current + 1} of {len(r.waves)} passed ({how}): {text}")
    kind = "not-enough-devices" if how == "unjudged" else "wave-passed"
    commands: Commands = (Audit(said), Notify(kind, said))
    if r.is_last:
        r = replace(_move(r, "complete"), why="finished")
        return r, (*commands, Notify("rollout-finished", _line(r, "finished")))
    r, more = _open_next(r)
    return r, commands + more


def _open_next(r: Rollout) -> Step:
    r = replace(r, current=r.current + 1, waiting=0)
    wave = replace(r.wave, opened_at=r.now, deadline=r.now + r.plan.policy.wave_timeout_s)
    r = _put(r, r.current, wave)
    said = _line(r, f"wave {r.current + 1} of {len(r.waves)} opens for {wave.size} devices, {wave.up_to} of {r.targets} in all")
    return r, (OpenWave(r.current, wave.up_to), Audit(said))


def _acknowledge(r: Rollout) -> Rollout:
    waves = tuple(replace(w, excused=w.failures, excused_unfit=w.unfit) for w in r.waves)
    r = replace(r, waves=waves, deadline=r.now + r.plan.policy.rollout_deadline_s)
    return _put(r, r.current, replace(r.wave, met_at=None, deadline=r.now + r.plan.policy.wave_timeout_s))


def _shift_timers(r: Rollout) -> Rollout:
    held = r.now - (r.paused_at if r.paused_at is not None else r.now)
    wave = r.wave
    later = {k: v + held for k in ("deadline", "met_at") if (v := getattr(wave, k)) is not None}
    r = replace(r, deadline=None if r.deadline is None else r.deadline + held)
    return _put(r, r.current, replace(wave, **later))


def _next_wake(r: Rollout) -> int | None:
    if r.status == "reverting":
        return r.recall_deadline
    if r.status != "running":
        return None
    wave, dwell = r.wave, r.plan.policy.dwell_s
    times = [r.deadline, wave.deadline, None if wave.met_at is None else wave.met_at + dwell]
    times += [wave.commit_by] if barrier.is_undecided(r) else []
    return min((t for t in times if t is not None and t > r.now), default=None)


def _move(r: Rollout, word: str) -> Rollout:
    return replace(r, status=TRANSITIONS[r.status, word])


def _put(r: Rollout, index: int, wave: WaveCount) -> Rollout:
    return replace(r, waves=(*r.waves[:index], wave, *r.waves[index + 1 :]))


def _line(r: Rollout, text: str) -> str:
    return f"rollout {r.plan.rollout_id} ({r.plan.model} v{r.plan.version}): {text}"
