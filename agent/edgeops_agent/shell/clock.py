"""What time it is, for a device that may have no clock: signed time plus the monotonic clock, else the wall above the floor."""

import time
from collections.abc import Callable

from edgeops.wire.desired import SignedTime


class Clock:
    """Believed Unix seconds. Until a signed time arrives in this boot it is max(wall, time floor)."""

    def __init__(
        self, floor: int, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._floor, self._wall, self._monotonic = floor, wall, monotonic
        self._anchor: tuple[int, float] | None = None

    def believe(self, signed: SignedTime) -> None:
        """From now on this boot counts from the signed time."""
        self._anchor = (signed.now, self._monotonic())

    def least(self) -> int:
        """Unix seconds that have passed for sure: what was signed, never what the wall clock says."""
        if self._anchor:
            return self.now()
        return self._floor

    def now(self) -> int:
        """Believed Unix seconds."""
        if self._anchor:
            at, since = self._anchor
            return at + int(self._monotonic() - since)
        return max(int(self._wall()), self._floor)


def tick() -> int:
    """Monotonic whole seconds: the machine's deadlines live within one boot of the agent."""
    return int(time.monotonic())
