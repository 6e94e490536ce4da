"""Deadlines of one started device, for the store: what silence means, and from when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgeops.rollout.policy import Policy

Quiet = Literal["fine", "unknown", "silent", "overdue"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the store knows of one started device without an outcome; seconds, None for what has not happened.

    `goodbye_at` is a clean goodbye, `paused_s` the time between earlier goodbyes and the births that followed them, `waits_s` how
    long the rollout's conditions let it wait.
    """

    started_at: int
    activated_at: int | None
    last_seen: int
    goodbye_at: int | None = None
    paused_s: int = 0
    waits_s: int = 0


def judge_silence(policy: Policy, seen: Seen, now: int) -> Quiet:
    """Say whether a device is `fine`, `unknown` (shown), `silent` or `overdue` (both become outcomes: failures)."""
    if _is_away(seen):
        return "fine"
    quiet = now - max(seen.activated_at, seen.last_seen) if seen.activated_at is not None else 0
    if quiet >= policy.silence_failure_s:
        return "silent"
    if now - seen.started_at - seen.paused_s - seen.waits_s >= policy.device_deadline_s:
        return "overdue"
    return "unknown" if quiet >= policy.silence_s else "fine"


def next_deadline(policy: Policy, seen: Seen, now: int) -> int | None:
    """The earliest time after `now` at which `judge_silence` may answer differently; None while a clean goodbye holds."""
    if _is_away(seen):
        return None
    times = [seen.started_at + seen.paused_s + seen.waits_s + policy.device_deadline_s]
    if seen.activated_at is not None:
        since = max(seen.activated_at, seen.last_seen)
        times += [since + policy.silence_s, since + policy.silence_failure_s]
    return min((t for t in times if t > now), default=None)


def _is_away(seen: Seen) -> bool:
    return seen.goodbye_at is not None and seen.goodbye_at >= seen.last_seen
