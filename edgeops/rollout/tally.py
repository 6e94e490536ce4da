"""Counting outcomes: which counter a verdict feeds, and which first reasons are remembered."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from edgeops.rollout.state import MAX_REASON_CHARS, MAX_REASONS, Outcome, Reason, Verdict, WaveCount

_FIELD = MappingProxyType(
    {
        "committed": "committed",
        "committed-unproven": "unproven",
        "rolled-back": "rolled_back",
        "failed": "failed",
        "unfit": "unfit",
        "silent": "silent",
    }
)
_BAD = frozenset({"rolled-back", "failed", "unfit", "silent"})


def settle(wave: WaveCount, verdict: Verdict) -> WaveCount:
    """Count one outcome; an outcome nobody announced counts its device as started too."""
    name = _FIELD[verdict]
    counted = {name: getattr(wave, name) + 1, "started": max(wave.started, wave.settled + 1)}
    wave = replace(wave, **counted)
    return replace(wave, unknown=min(wave.unknown, wave.in_flight), proven=min(wave.proven, wave.in_flight))


def unsettle(wave: WaveCount, was: Verdict) -> WaveCount:
    """Take back one outcome, if there is one of this kind."""
    name = _FIELD[was]
    return replace(wave, **{name: max(0, getattr(wave, name) - 1)})


def remember(reasons: tuple[Reason, ...], event: Outcome) -> tuple[Reason, ...]:
    """Count the reason of a bad outcome; past `MAX_REASONS` kinds they are counted together as `other`."""
    if event.verdict not in _BAD:
        return reasons
    text = event.reason[:MAX_REASON_CHARS] or "no reason given"
    known = any(x.verdict == event.verdict and x.text == text for x in reasons)
    key = (event.verdict, text) if known or len(reasons) < MAX_REASONS - 1 else ("other", "further reasons")
    for i, x in enumerate(reasons):
        if (x.verdict, x.text) == key:
            return (*reasons[:i], replace(x, count=x.count + 1), *reasons[i + 1 :])
    return (*reasons, Reason(key[0], key[1], 1))
