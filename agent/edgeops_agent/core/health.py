"""The verdict of a trial, from counts alone: error rate, latency relative to this device's own previous model, enough calls."""

from dataclasses import dataclass

from .slot import Target

MIN_FOR_RATIO = 20


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the trial has seen: live calls and errors, median latencies in µs (0 = unknown), the previous model's too."""

    calls: int = 0
    errors: int = 0
    latency_us: int = 0
    previous_us: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """`over` says whether the trial has ended; `reason` is empty when it passed; `unproven` when nobody called."""

    over: bool
    reason: str = ""
    detail: str = ""
    unproven: bool = False


def judge(target: Target, evidence: Evidence, elapsed_s: float) -> Verdict:
    """Judge a running trial after `elapsed_s` seconds. Errors end it at once when even error-free calls could not mend the rate."""
    calls, errors = evidence.calls, evidence.errors
    allowed = target.max_error_ppm
    if errors and errors * 1_000_000 > allowed * max(calls, target.min_calls, MIN_FOR_RATIO):
        return Verdict(True, "error-rate", f"{errors} of {calls} calls failed")
    if elapsed_s < target.trial_s:
        return Verdict(False)
    if errors and errors * 1_000_000 > allowed * calls:
        return Verdict(True, "error-rate", f"{errors} of {calls} calls failed")
    ratio = target.max_latency_ratio_ppm
    comparable = calls >= MIN_FOR_RATIO and evidence.previous_us > 0 and ratio > 0
    if comparable and evidence.latency_us * 1_000_000 > ratio * evidence.previous_us:
        detail = f"median {evidence.latency_us} µs against {evidence.previous_us} µs of the previous model"
        return Verdict(True, "latency", detail)
    return Verdict(True, unproven=calls < max(1, target.min_calls))
