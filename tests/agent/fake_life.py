"""One slot's runner with workers that are none, on a clock that jumps."""

import contextlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from .rooms import Rooms, until

DAY_S = 86_400


class FakeWorker:
    """A worker as the runner sees it; a test says how many calls it has answered and when it dies."""

    def __init__(self) -> None:
        self.alive, self.reason, self.last_words, self.pid = True, "", "", 1
        self.calls = self.errors = self.latency = 0

    def start(self, runnable: Any, sockets: Any) -> None:
        """Nothing to start."""

    def check(self) -> Any:
        """Always sound."""
        return SimpleNamespace(ok=True, reason="", detail="")

    def serve(self) -> None:
        """Nothing to serve."""

    def drain(self, successor: Any, seconds: float) -> int:
        """Nothing in hand."""
        return 0

    def stop(self) -> None:
        """It is gone."""
        self.alive = False

    def die(self, reason: str, words: str = "") -> None:
        """It ends by itself."""
        self.alive, self.reason, self.last_words = False, reason, words

    def collect(self) -> dict[str, Any]:
        """What a test has it say."""
        counters = {"calls": self.calls - self.errors, "errors": self.errors, "latency_us_p50": self.latency}
        return {"counters": counters, "window": None}


class Life:
    """The runner, driven turn by turn, and what it has posted."""

    def __init__(self, rooms: Rooms, root: Path) -> None:
        self.now = 1000.0
        self.hired: list[FakeWorker] = []
        self.posted: deque[Any] = deque(maxlen=10_000)
        self.words = rooms.core("slot")
        self.old = self.words.Build("a" * 64, "int8", "digits", 1)
        self.new = self.words.Build("b" * 64, "int8", "digits", 2)
        self.vacant: list[bool] = []
        vacancy = SimpleNamespace(take=lambda name: self.vacant.append(False), leave=lambda name: self.vacant.append(True))
        self.runner = rooms.shell("runner").SlotRunner(
            "main", SimpleNamespace(root=root), [], vacancy, "any", self.posted.append, 10.0, lambda: self.now, self._hire,
            [root / "health.d"],
        )  # fmt: skip

    def _hire(self) -> FakeWorker:
        self.hired.append(FakeWorker())
        return self.hired[-1]

    @property
    def worker(self) -> FakeWorker:
        """The newest one."""
        return self.hired[-1]

    def run(self, build: Any) -> None:
        """Carry out `Run(build)`."""
        self.runner.do(self.words.Run(build))
        self.runner.turn(1.0)

    def trial(self, **changes: Any) -> None:
        """Put version 2 on trial for a minute."""
        target = self.words.Target(**{"order": 7, "action": "run", "build": self.new, "trial_s": 60, **changes})
        self.runner.do(self.words.Try(target))
        self.runner.turn(1.0)

    def wait(self, seconds: float, calls: int = 0, errors: int = 0, latency: int = 0) -> None:
        """Time passes, the newest worker counts, the runner looks."""
        self.now += seconds
        self.worker.calls += calls
        self.worker.errors += errors
        self.worker.latency = latency or self.worker.latency
        self.runner.turn(0)

    def said(self, kind: str) -> list[Any]:
        """What of this kind was posted."""
        return [one for one in self.posted if type(one).__name__ == kind]

    def verdict(self) -> Any:
        """How the trial ends, which may have to wait for checks: Done or Failed."""

        def ended() -> Any:
            self.runner.turn(0)
            return self.said("Done") + self.said("Failed")

        return until(ended, "the verdict")[-1]


@contextlib.contextmanager
def living(rooms: Rooms, root: Path) -> Iterator[Life]:
    """A slot that runs version 1, whose builds need no disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rooms.shell("builds"), "runnable", lambda *_: None)
        patch.setattr(rooms.shell("builds"), "check", lambda *_: None)
        patch.setattr(rooms.shell("runner"), "tell_build", lambda *_, **__: None)
        patch.setattr(rooms.shell("runner"), "AGAIN_S", (0.0, 0.0, 0.0))
        life = Life(rooms, root)
        life.run(life.old)
        try:
            yield life
        finally:
            life.run(None)
