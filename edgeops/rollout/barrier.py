"""All or nothing: what is to become of a wave that is one barrier. Pure judgements over counters, like the gates.

Its members are all devices the wave was planned with: one that is away holds the others up until the wave's time is over, one that
fails, is unfit or leaves the fleet before the decision ends it for everybody. A member counts as ready while it says that it has
passed its trial *and* is there to hear the decision; one that ran the release already is ready too.

A device that has passed its trial goes back by itself when `commit_wait_s` is over. So nothing is decided when the first of them is
near that time: an order to commit that comes too late would make some commit and others not.
"""

from __future__ import annotations

from typing import Literal

from edgeops.rollout.state import Rollout, WaveCount

Fate = Literal["wait", "commit", "back"]
MOST_MARGIN_S = 300


def latest_decision(commit_s: int, proven_at: int) -> int:
    """When it is too late to let a device commit that has waited at the barrier since `proven_at` at the earliest."""
    return proven_at + commit_s - min(MOST_MARGIN_S, commit_s // 4)


def is_undecided(r: Rollout) -> bool:
    """Whether the open wave is a barrier nobody has decided on; what a device does there can still be undone."""
    return r.plan.barrier and r.current >= 0 and r.wave.decision == "" and bool(r.wave.size or r.wave.started)


def members(wave: WaveCount) -> int:
    """How many devices must be ready; late joiners of a dynamic group are members too."""
    return max(wave.size, wave.started)


def ready(wave: WaveCount) -> int:
    """Members that wait at the barrier or run the release already."""
    return wave.proven + wave.committed + wave.unproven


def judge(r: Rollout) -> tuple[Fate, str]:
    """What to do about the undecided barrier of the open wave at `r.now`, and the sentence that explains it."""
    wave, running = r.wave, r.status == "running"
    if lost := wave.failures + wave.unfit:
        return "back", f"barrier-broken: {lost} of the {members(wave)} devices of the wave cannot have the release"
    if wave.commit_by is not None and r.now >= wave.commit_by:
        return "back", f"barrier-late: {score(wave)} when the first would soon have gone back by themselves"
    if running and r.now >= min(wave.deadline or 0, r.deadline or 0):
        return "back", f"barrier-late: {score(wave)} when the time of the wave or of the rollout was over"
    if running and ready(wave) >= members(wave):
        return "commit", f"{score(wave)}: all may commit"
    return "wait", score(wave)


def split(r: Rollout) -> list[int]:
    """Waves that were let commit, in which a device has not committed all the same."""
    return [index for index, wave in enumerate(r.waves) if wave.decision == "commit" and wave.failures]


def score(wave: WaveCount) -> str:
    """How far the barrier is from being whole."""
    return f"{ready(wave)} of {members(wave)} devices are ready at the barrier"
