"""The gates: pure judgements over counters. None of them changes anything; the engine acts on what they say."""

from __future__ import annotations

from typing import Literal

from edgeops.rollout import barrier
from edgeops.rollout.policy import PPM
from edgeops.rollout.state import Rollout

Say = Literal["wait", "pass", "pass-unjudged", "halt"]


def hard_stop(r: Rollout) -> str:
    """Why unacknowledged failures over all waves stop the rollout, or the empty string."""
    policy = r.plan.policy
    failures = sum(w.fresh_failures for w in r.waves)
    started = sum(w.judged for w in r.waves)
    if failures > policy.max_failures:
        return f"hard-stop: {failures} devices failed, more than max_failures = {policy.max_failures}"
    if started >= policy.hard_stop_min_started and failures * PPM > policy.max_failure_ppm * started:
        return f"hard-stop: {failures} of {started} started devices failed, more than {policy.max_failure_ppm} ppm"
    return ""


def kept(r: Rollout) -> int:
    """Devices of the open wave that count as committed."""
    return r.wave.committed + (r.wave.unproven if r.plan.policy.count_unproven else 0)


def needed(r: Rollout) -> int:
    """Started devices the open wave needs before its fraction means anything."""
    wave = r.wave
    return min(r.plan.policy.min_devices, max(0, wave.size - wave.excused - wave.excused_unfit))


def is_enough(r: Rollout) -> bool:
    """Whether the open wave has enough started devices to be judged."""
    return r.wave.judged >= needed(r)


def holds_fraction(r: Rollout) -> bool:
    """Whether committed / started of the open wave is at its success fraction now (nobody started: it holds)."""
    return kept(r) * PPM >= r.plan.success_ppm * r.wave.judged


def is_met(r: Rollout) -> bool:
    """Whether the open wave has enough devices and holds its fraction."""
    return is_enough(r) and holds_fraction(r)


def is_out_of_reach(r: Rollout) -> bool:
    """Whether the open wave would miss its fraction even if everybody still open committed."""
    wave, policy = r.wave, r.plan.policy
    everybody = max(wave.size, wave.started) - wave.unfit - wave.excused
    lost = wave.fresh_failures + (0 if policy.count_unproven else wave.unproven)
    return (everybody - lost) * PPM < r.plan.success_ppm * everybody


def is_exhausted(r: Rollout) -> bool:
    """Whether every device of the open wave has started and settled."""
    return r.wave.started >= r.wave.size and r.wave.in_flight == 0


def wave_gate(r: Rollout) -> tuple[Say, str]:
    """Judge the open wave at `r.now`: what to do and the sentence that explains it."""
    wave = r.wave
    if wave.size == 0 and wave.started == 0:
        return "pass", "the wave has no devices of its own"
    if barrier.is_undecided(r):
        return "wait", barrier.score(wave)
    late = r.now >= (wave.deadline or 0)
    if is_met(r):
        dwelt = wave.met_at is not None and r.now >= wave.met_at + r.plan.policy.dwell_s
        if dwelt and (r.waiting == 0 or late):
            return "pass", _score(r)
        return "wait", f"{_score(r)}; holding until the dwell is over"
    if is_enough(r) and (late or is_out_of_reach(r)):
        return "halt", f"wave-missed: {_score(r)}, wanted {r.plan.success_ppm} ppm"
    if late or is_exhausted(r):
        return _too_few(r)
    return "wait", _score(r) if is_enough(r) else _few_text(r)


def _too_few(r: Rollout) -> tuple[Say, str]:
    if r.is_last and r.wave.fresh_failures == 0 and holds_fraction(r):
        return "pass-unjudged", f"{_few_text(r)}; nothing follows the last wave, the others may still join"
    return "halt", f"{_few_text(r)}; `rollout resume` waits once more, then `rollout advance` goes on without them"


def _score(r: Rollout) -> str:
    return f"{kept(r)} of {r.wave.judged} started devices committed"


def _few_text(r: Rollout) -> str:
    unfit = f", {r.wave.unfit} unfit" if r.wave.unfit else ""
    return f"not-enough-devices: {r.wave.judged} of at least {needed(r)} started{unfit}"


def explain(r: Rollout) -> str:
    """One sentence for `rollout show`: what the open wave's gate says now, or why the rollout rests."""
    if r.status == "running":
        return f"wave {r.current + 1} of {len(r.waves)}: {wave_gate(r)[1]}"
    return f"{r.status}: {r.why}" if r.why else r.status
