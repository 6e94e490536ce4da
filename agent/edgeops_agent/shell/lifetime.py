"""The worker that takes a slot's calls, and what it has counted: in all, and over its last stretch of life."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.slot import Build
from .news import Collected
from .revival import Deaths
from .workers import Worker

BUCKET_S, MOST_BUCKETS = 10.0, 360
MOST_HISTORIES = 4
MOST_WINDOW = 32 << 10
MOST_WORDS = 500


class History:
    """What is remembered of a build from one worker to the next: calls and errors of the last hour, and how often it died."""

    def __init__(self) -> None:
        self.deaths = Deaths()
        self._buckets: deque[tuple[float, int, int]] = deque(maxlen=MOST_BUCKETS)

    def add(self, now: float, calls: int, errors: int) -> None:
        """So many more calls, errors among them, were counted at `now`."""
        if self._buckets and now - self._buckets[-1][0] < BUCKET_S:
            began, before, wrong = self._buckets.pop()
            self._buckets.append((began, before + calls, wrong + errors))
        else:
            self._buckets.append((now, calls, errors))

    def since(self, at: float) -> tuple[int, int]:
        """Calls and errors that were counted from `at` on, to within BUCKET_S."""
        lately = [bucket for bucket in self._buckets if bucket[0] >= at]
        return sum(calls for _, calls, _ in lately), sum(errors for _, _, errors in lately)


class Histories:
    """Those of the last few builds."""

    def __init__(self) -> None:
        self._kept: dict[Build, History] = {}

    def of(self, build: Build) -> History:
        """The build's history, a new one if it has none."""
        history = self._kept.pop(build) if build in self._kept else History()
        self._kept[build] = history
        while len(self._kept) > MOST_HISTORIES:
            del self._kept[next(iter(self._kept))]
        return history


@dataclass(slots=True)
class Live:
    """The worker that takes the calls since a monotonic second, and what it has counted."""

    build: Build
    worker: Worker
    since: float
    history: History = field(default_factory=History)
    calls: int = 0
    errors: int = 0
    latency_us: int = 0

    def count(self, counts: Mapping[str, Any], now: float) -> Collected | None:
        """Take over what the worker has counted, and what is new of it; None when it speaks nonsense."""
        try:
            numbers, window = counts["counters"], counts["window"]
            errors, answered = int(numbers.get("errors", 0)), int(numbers.get("calls", 0))
            latency = int(numbers.get("latency_us_p50", 0))
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
        window = window if isinstance(window, bytes) and len(window) <= MOST_WINDOW else None
        calls = answered + errors
        news = Collected(self.build, window, max(0, calls - self.calls), max(0, errors - self.errors))
        self.history.add(now, news.calls, news.errors)
        self.calls, self.errors, self.latency_us = calls, errors, latency
        return news


def last_words(worker: Worker) -> str:
    """The end of what a worker has said, at most MOST_WORDS bytes."""
    return worker.last_words.encode()[-MOST_WORDS:].decode(errors="ignore").strip()
