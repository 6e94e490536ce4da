"""What a check of a model found; a plain value that both sides of the control channel know."""

from dataclasses import dataclass

STUCK = 75
"""Exit code of a worker whose model heeds no request to stop."""


@dataclass(frozen=True, slots=True)
class ProbeOutcome:
    """`ok`, or a kebab-case `reason` with a `detail` for people; latencies in microseconds, 0 when nothing was timed."""

    ok: bool
    reason: str = ""
    detail: str = ""
    latency_us_p50: int = 0
    latency_us_p99: int = 0
