"""The verdict of a trial, from counts alone: error rate and latency, each also against this device's own previous model.

A candidate is not blamed for what was broken before: a camera that fails a tenth of the calls fails them under any model. What the
previous model showed over its last stretch of life excuses the candidate, but no more than it showed, and only where it saw enough.
"""

import math
from dataclasses import dataclass

from .slot import Target

ENOUGH = 20
"""Fewer calls than this of either model compare nothing."""
Z = 1.6449
"""The normal quantile of a one-sided 95 % bound."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the trial has seen: live calls and errors, median latency in µs (0 = unknown); the same of the previous model.

    The previous model's are of as long a stretch just before the trial as the trial lasts, not of its whole life: what broke a
    minute before the update broke before the update.
    """

    calls: int = 0
    errors: int = 0
    latency_us: int = 0
    previous_calls: int = 0
    previous_errors: int = 0
    previous_us: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """`over` says whether the trial has ended; `reason` is empty when it passed; `unproven` when nobody called.

    `detail` says what was compared, of a passed trial too.
    """

    over: bool
    reason: str = ""
    detail: str = ""
    unproven: bool = False


def judge(target: Target, evidence: Evidence, elapsed_s: float) -> Verdict:
    """Judge a running trial after `elapsed_s` seconds. Errors end it at once when even error-free calls could not mend the rate."""
    calls, errors = evidence.calls, evidence.errors
    limit = error_limit_ppm(target.max_error_ppm, evidence.previous_calls, evidence.previous_errors)
    failed = Verdict(True, "error-rate", _errors_told(target, evidence, limit))
    if errors and errors * 1_000_000 > limit * max(calls, target.min_calls, ENOUGH):
        return failed
    if elapsed_s < target.trial_s:
        return Verdict(False)
    if errors and errors * 1_000_000 > limit * calls:
        return failed
    why_not, slower = _compare_latency(target, evidence)
    if slower:
        return Verdict(True, "latency", slower)
    told = f"{_errors_told(target, evidence, limit)}; {why_not or _latency_told(evidence)}"
    answered = calls - errors if limit > target.max_error_ppm else calls  # calls whose failure was excused have proved nothing
    return Verdict(True, detail=told, unproven=answered < max(1, target.min_calls))


def error_limit_ppm(allowed_ppm: int, calls: int, errors: int) -> int:
    """The error rate a candidate may have: what is allowed, or, when the previous model itself was over that, its upper bound.

    The bound is the upper end of Wilson's score interval, one-sided 95 %: with p = errors / n,
        (p + z²/2n + z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n),  z = 1.6449
    (E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209–212; recommended for small n by Brown, Cai and DasGupta, Stat. Sci. 16 (2001)
    101–133). A previous model within what is allowed excuses nothing: for small n its bound would lie far above the limit only for
    want of calls. Neither do fewer than `ENOUGH` calls.
    """
    if calls < ENOUGH or errors * 1_000_000 <= allowed_ppm * calls:
        return allowed_ppm
    rate, spread = min(1.0, errors / calls), Z * Z / calls
    reach = Z * math.sqrt(rate * (1 - rate) / calls + spread / (4 * calls))
    return max(allowed_ppm, min(1_000_000, math.ceil(1_000_000 * (rate + spread / 2 + reach) / (1 + spread))))


def _errors_told(target: Target, evidence: Evidence, limit: int) -> str:
    told = f"{evidence.errors} of {evidence.calls} calls failed"
    if limit == target.max_error_ppm:
        return told
    before = f"{evidence.previous_errors} of {evidence.previous_calls} of the previous model"
    return f"{told}; {before} failed as well, which excuses up to {limit} ppm"


def _compare_latency(target: Target, evidence: Evidence) -> tuple[str, str]:
    """(why nothing is compared, how much slower than allowed); one of them or both are empty."""
    ratio = target.max_latency_ratio_ppm
    if ratio == 0:
        return "latency is not to be compared", ""
    if evidence.calls < ENOUGH or evidence.latency_us <= 0:
        return f"latency not compared: fewer than {ENOUGH} calls", ""
    if evidence.previous_calls < ENOUGH or evidence.previous_us <= 0:
        return f"latency not compared: the previous model had fewer than {ENOUGH} calls just before", ""
    return "", _latency_told(evidence) if evidence.latency_us * 1_000_000 > ratio * evidence.previous_us else ""


def _latency_told(evidence: Evidence) -> str:
    return f"median {evidence.latency_us} µs against {evidence.previous_us} µs of the previous model"
