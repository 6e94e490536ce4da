"""A candidate that takes calls on trial: what it is held against, and which checks of the device's owner it must pass."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..core.health import Evidence, Verdict, judge
from ..core.slot import Target
from .hooks import Hooks
from .lifetime import Live

LEAST_STRETCH_S, MOST_STRETCH_S = 60.0, 3600.0


@dataclass(frozen=True, slots=True)
class Before:
    """What the previous model showed just before the trial; its median latency in µs is 0 when unknown."""

    calls: int = 0
    errors: int = 0
    latency_us: int = 0


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate taking calls since `began` (monotonic seconds)."""

    target: Target
    began: float
    before: Before
    hooks: Hooks

    def verdict(self, live: Live, now: float) -> Verdict:
        """How it stands at `now`, at once. It passes when the counts allow it and every check has said yes."""
        evidence = Evidence(
            live.calls, live.errors, live.latency_us, self.before.calls, self.before.errors, self.before.latency_us
        )
        verdict = judge(self.target, evidence, now - self.began)
        if verdict.reason:
            return verdict
        checks = self.hooks.standing(last=verdict.over)
        if checks.reason:
            return Verdict(True, checks.reason, checks.detail)
        return verdict if checks.over else Verdict(False)


def before(target: Target, now: float, previous: Live | None, earlier: Trial | None) -> Before:
    """What `previous` showed up to `now`, over as long a stretch as the trial lasts (a minute at least, an hour at most).

    A trial that begins anew while its candidate takes the calls is held against the same as the `earlier` one.
    """
    if previous is None:
        return Before()
    if earlier and previous.build == target.build:
        return earlier.before
    stretch = min(max(target.trial_s, LEAST_STRETCH_S), MOST_STRETCH_S)
    return Before(*previous.history.since(now - stretch), previous.latency_us)


def environment(slot: str, target: Target, listeners: Sequence[socket.socket]) -> Mapping[str, str]:
    """What a check is told: which candidate this is, and where it takes calls."""
    build = target.build
    told = {
        "EDGEOPS_SLOT": slot, "EDGEOPS_MODEL": build.model if build else "", "EDGEOPS_VERSION": str(build.version) if build else "",
        "EDGEOPS_RELEASE": build.release if build else "",
    }  # fmt: skip
    for listener in listeners:
        address = listener.getsockname()
        if listener.family == socket.AF_UNIX:
            told["EDGEOPS_SOCKET"] = str(address)
        else:
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address[0], address[0])  # noqa: S104
            told["EDGEOPS_HTTP"] = f"http://[{host}]:{address[1]}" if ":" in host else f"http://{host}:{address[1]}"
    return told
