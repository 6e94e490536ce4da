"""The verdict of a trial from counts alone."""

import random
from dataclasses import replace

import pytest

from edgeops_agent.core.health import Evidence, error_limit_ppm, judge
from edgeops_agent.core.slot import Target

from .rooms import Rooms

TARGET = Target(1, "run", trial_s=60, min_calls=10, max_error_ppm=10_000, max_latency_ratio_ppm=2_000_000)


@pytest.fixture
def rooms() -> Rooms:
    """The agent as it is."""
    return Rooms()


@pytest.mark.parametrize(
    ("evidence", "elapsed", "over", "reason", "unproven"),
    [
        (Evidence(), 59, False, "", False),
        (Evidence(), 60, True, "", True),
        (Evidence(calls=9), 60, True, "", True),
        (Evidence(calls=10), 60, True, "", False),
        (Evidence(calls=5, errors=5), 1, True, "error-rate", False),
        (Evidence(calls=1000, errors=10), 1, False, "", False),
        (Evidence(calls=1000, errors=11), 1, True, "error-rate", False),
        (Evidence(calls=100, latency_us=201, previous_calls=100, previous_us=100), 60, True, "latency", False),
        (Evidence(calls=100, latency_us=200, previous_calls=100, previous_us=100), 60, True, "", False),
        (Evidence(calls=19, latency_us=900, previous_calls=100, previous_us=100), 60, True, "", False),
        (Evidence(calls=100, latency_us=900, previous_calls=19, previous_us=100), 60, True, "", False),
        (Evidence(calls=100, latency_us=900, previous_calls=100, previous_us=0), 60, True, "", False),
    ],
)
def test_judge(evidence: Evidence, elapsed: float, over: bool, reason: str, unproven: bool) -> None:
    """Errors end a trial early, latency is relative to the device's own previous model, silence is unproven."""
    verdict = judge(TARGET, evidence, elapsed)
    assert (verdict.over, verdict.reason, verdict.unproven) == (over, reason, unproven)


def test_what_was_broken_before_is_not_held_against_the_candidate(rooms: Rooms) -> None:
    """A tenth of all calls fails under any model here: the candidate passes with as many, and fails with clearly more."""
    health = rooms.core("health")
    before = {"previous_calls": 500, "previous_errors": 50}
    same = health.judge(TARGET, health.Evidence(calls=300, errors=32, **before), 60)
    assert (same.over, same.reason, same.unproven) == (True, "", False)
    assert "32 of 300 calls failed; 50 of 500 of the previous model failed as well" in same.detail
    worse = health.judge(TARGET, health.Evidence(calls=300, errors=60, **before), 60)
    assert (worse.over, worse.reason) == (True, "error-rate")
    assert "excuses up to" in worse.detail


def test_a_sound_predecessor_excuses_nothing(rooms: Rooms) -> None:
    """Few calls leave room for doubt, and doubt is no excuse: 20 calls without an error allow no more than what is allowed."""
    health = rooms.core("health")
    for calls, errors in ((20, 0), (100, 1), (19, 19), (0, 0)):
        evidence = health.Evidence(calls=100, errors=2, previous_calls=calls, previous_errors=errors)
        assert health.judge(TARGET, evidence, 60).reason == "error-rate", (calls, errors)


def test_an_excused_candidate_must_have_answered(rooms: Rooms) -> None:
    """Where everything failed before and still does, nothing is proved, and nothing is the candidate's fault."""
    health = rooms.core("health")
    verdict = health.judge(TARGET, health.Evidence(calls=100, errors=100, previous_calls=100, previous_errors=100), 60)
    assert (verdict.over, verdict.reason, verdict.unproven) == (True, "", True)


def test_the_bound_is_wilsons() -> None:
    """It solves (p - p0)² = z² p0 (1 - p0) / n for p0, as Wilson put it; it grows with p, and shrinks towards p with n."""
    for calls, errors in ((20, 1), (40, 3), (100, 50), (1000, 990), (30, 30)):
        bound = error_limit_ppm(0, calls, errors) / 1e6
        rate = errors / calls
        assert rate < bound <= 1 or errors == calls
        assert (bound - rate) ** 2 == pytest.approx(1.6449**2 * bound * (1 - bound) / calls, abs=1e-6)
    assert error_limit_ppm(0, 20, 1) > error_limit_ppm(0, 200, 10) > error_limit_ppm(0, 20_000, 1000) > 50_000
    assert error_limit_ppm(70_000, 20, 1) == 70_000


def test_how_often_it_blames_and_misses() -> None:
    """10 % before and after: blamed in less than a quarter of the trials, where it was in all; 10 % before, 40 % after: caught.

    Two samples are compared, so it is not 5 %: the candidate's own rate scatters, too.
    """
    rng = random.Random(5)

    def rolled_back(rate: float, calls: int = 200, trials: int = 400) -> float:
        found = 0
        for _ in range(trials):
            before, after = (sum(rng.random() < p for _ in range(calls)) for p in (0.1, rate))
            found += judge(TARGET, Evidence(calls, after, 0, calls, before, 0), 60).reason != ""
        return found / trials

    assert rolled_back(0.1) < 0.25
    assert rolled_back(0.4) > 0.99
    alone = [judge(TARGET, Evidence(200, 20, 0, 0, 0, 0), 60).reason for _ in range(2)]
    assert alone == ["error-rate"] * 2


def test_why_nothing_was_compared_is_said(rooms: Rooms) -> None:
    """A previous model that was idle, a candidate nobody called, an order that wants no comparison."""
    health = rooms.core("health")
    idle = health.judge(TARGET, health.Evidence(calls=100, latency_us=900), 60)
    assert (idle.reason, "the previous model had fewer than 20 calls just before" in idle.detail) == ("", True)
    assert "fewer than 20 calls" in health.judge(TARGET, health.Evidence(calls=3), 60).detail
    off = replace(TARGET, max_latency_ratio_ppm=0)
    slow = health.Evidence(calls=100, latency_us=9, previous_calls=99, previous_us=1)
    assert "not to be compared" in health.judge(off, slow, 60).detail
