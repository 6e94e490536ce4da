"""When to start again what does not stay up: at once a few times; what has nothing to fall back on after 5, 10, 20 … 60 seconds."""

import time
from collections import deque
from collections.abc import Callable, Mapping

from ..core.slot import Slot

FIRST_S, MOST_S, CALM_S = 5.0, 60.0, 600.0
STABLE_S, HOUR_S = 60.0, 3600.0
MOST_IN_A_ROW, MOST_AN_HOUR = 3, 10
PASSING = ("memory", "unresponsive", "busy", "no-process", "start-timeout", "load-timeout", "call-timeout", "crashed")
"""What may go over by itself, so that a build which fails so is tried again before it is given up."""


def may_pass(reason: str) -> bool:
    """Whether a build that fails for this reason is worth another try."""
    return reason == "disk" or reason.startswith(PASSING)


class Deaths:
    """How often one build has died: three short lives in a row and ten deaths an hour are borne, more are not."""

    def __init__(self) -> None:
        self._in_a_row = 0
        self._recent: deque[float] = deque(maxlen=MOST_AN_HOUR + 1)

    def borne(self, now: float, lived_s: float) -> bool:
        """Count a death after `lived_s` seconds; whether the build may be started again at once."""
        self._in_a_row = 1 if lived_s > STABLE_S else self._in_a_row + 1
        self._recent.append(now)
        too_often = len(self._recent) > MOST_AN_HOUR and now - self._recent[0] <= HOUR_S
        if too_often or self._in_a_row > MOST_IN_A_ROW:
            self._in_a_row = 0
            return False
        return True


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

    def due(self, states: Mapping[str, Slot]) -> list[str]:
        """The slots to try now, each said once; where a candidate is about to take the calls, or does, that is waited for."""
        over = [slot for slot, at in self._planned.items() if self._now() >= at]
        slots = [slot for slot in over if states.get(slot, Slot()).phase not in ("trial", "proven")]
        for slot in slots:
            del self._planned[slot]
        return slots
