"""When to start again what does not stay up and has nothing to fall back on: after 5, 10, 20 … 60 seconds, 5 again after a calm."""

import time
from collections.abc import Callable

FIRST_S, MOST_S, CALM_S = 5.0, 60.0, 600.0


class Revival:
    """Plans by slot."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._planned: dict[str, float] = {}
        self._last: dict[str, tuple[float, float]] = {}

    def plan(self, slot: str) -> float:
        """Try `slot` again later; in how many seconds."""
        now, (since, waited) = self._now(), self._last.get(slot, (float("-inf"), 0.0))
        wait = FIRST_S if now - since > CALM_S else min(waited * 2, MOST_S)
        self._last[slot], self._planned[slot] = (now, wait), now + wait
        return wait

    def due(self) -> list[str]:
        """The slots to try now, each said once."""
        slots = [slot for slot, at in self._planned.items() if self._now() >= at]
        for slot in slots:
            del self._planned[slot]
        return slots
