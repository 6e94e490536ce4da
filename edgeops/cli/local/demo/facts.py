"""What a demo comes to, and what it promised."""

from dataclasses import asdict, dataclass, field

REAL = 5


@dataclass(slots=True)
class Facts:
    """What the flight came to."""

    devices_enrolled: int = 0
    committed: int = 0
    rolled_back: int = 0
    rollouts_halted: int = 0
    drift_alarms: int = 0
    false_drift_alarms: int = 0
    refused_blocks: int = 0
    refused_desired: int = 0
    inferences: int = 0
    failed_calls: int = 0
    acl_denied: int = 0
    latency_p50_us: int = 0
    latency_p99_us: int = 0
    seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)


def failures(facts: Facts, devices: int = REAL) -> list[str]:
    """Every promise of a demo with so many devices that does not hold; empty when all do."""
    wanted = {
        "devices_enrolled": facts.devices_enrolled == devices,
        "committed": facts.committed == 2 * devices,
        "rolled_back": facts.rolled_back >= 2,
        "rollouts_halted": facts.rollouts_halted == 2,
        "drift_alarms": facts.drift_alarms == 1,
        "false_drift_alarms": facts.false_drift_alarms == 0,
        "refused_blocks": facts.refused_blocks >= 2,
        "refused_desired": facts.refused_desired >= 2,
        "acl_denied": facts.acl_denied >= 4,
        "inferences": facts.inferences > 0,
        "failed_calls": facts.failed_calls == 0,
        "latency": 0 < facts.latency_p50_us <= facts.latency_p99_us,
    }
    known = asdict(facts)
    return [f"{name} = {known.get(name, '')}" for name, holds in wanted.items() if not holds]
