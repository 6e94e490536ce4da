"""The verdict of a trial from counts alone."""

import pytest

from edgeops_agent.core.health import Evidence, judge
from edgeops_agent.core.slot import Target

TARGET = Target(1, "run", trial_s=60, min_calls=10, max_error_ppm=10_000, max_latency_ratio_ppm=2_000_000)


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
        (Evidence(calls=100, latency_us=201, previous_us=100), 60, True, "latency", False),
        (Evidence(calls=100, latency_us=200, previous_us=100), 60, True, "", False),
        (Evidence(calls=19, latency_us=900, previous_us=100), 60, True, "", False),
        (Evidence(calls=100, latency_us=900, previous_us=0), 60, True, "", False),
    ],
)
def test_judge(evidence: Evidence, elapsed: float, over: bool, reason: str, unproven: bool) -> None:
    """Errors end a trial early, latency is relative to the device's own previous model, silence is unproven."""
    verdict = judge(TARGET, evidence, elapsed)
    assert (verdict.over, verdict.reason, verdict.unproven) == (over, reason, unproven)
