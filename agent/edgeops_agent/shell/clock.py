"""What time it is, for a device that may have no clock: signed time plus the monotonic clock, else the wall above the floor."""

import time

from edgeops.wire.desired import SignedTime


class Clock:
    """Believed Unix seconds. Until a signed time arrives in this boot it is max(wall, time floor)."""

    def __init__(self, floor: int) -> None:
        self._floor = floor
        self._anchor: tuple[int, float] | None = None

    def believe(self, signed: SignedTime) -> None:
        """From now on this boot counts from the signed time."""
        self._anchor = (signed.now, time.monotonic())

    def now(self) -> int:
        """Believed Unix seconds."""
        if self._anchor:
            at, since = self._anchor
            return at + int(time.monotonic() - since)
        return max(int(time.time()), self._floor)
