"""What time it is, for a device that may have no clock: signed time plus the monotonic clock, else the wall above the floor."""

import time
from collections.abc import Callable

from edgeops.wire.desired import SignedTime


class Clock:
    """Believed Unix seconds. Until a signed time arrives in this boot it is max(wall, time floor).

    It also holds the open question: `nonce`, sent at monotonic second `asked`. An answer counts from when it was asked for, so that
    one that was held back makes nothing look younger than it is.
    """

    def __init__(
        self, floor: int, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._floor, self._wall, self.monotonic = floor, wall, monotonic
        self._anchor: tuple[int, float] | None = None
        self.nonce = ""
        self.asked = 0

    def ask(self, nonce: str) -> str:
        """From now on only an answer to `nonce` is believed."""
        self.nonce, self.asked = nonce, int(self.monotonic())
        return nonce

    def believe(self, signed: SignedTime) -> None:
        """From now on this boot counts from the signed time, but never goes back, and never hears the same answer twice."""
        if self._anchor is None or signed.now + self.monotonic() - self.asked > self.now():
            self._anchor = (signed.now, self.asked)
        self.nonce = ""

    def forget(self, floor: int) -> None:
        """A new epoch begins: what was signed before it says nothing any more, `floor` is the least that has passed."""
        self._floor, self._anchor = floor, None

    @property
    def sure(self) -> bool:
        """Whether a signed time arrived in this boot."""
        return self._anchor is not None

    def least(self) -> int:
        """Unix seconds that have passed for sure: what was signed, never what the wall clock says."""
        return self.now() if self._anchor else self._floor

    def wall(self) -> int:
        """Unix seconds as the device's own clock shows them."""
        return int(self._wall())

    def tick(self) -> int:
        """Monotonic whole seconds: the machine's deadlines live within one boot of the agent."""
        return int(self.monotonic())

    def now(self) -> int:
        """Believed Unix seconds."""
        if self._anchor:
            at, since = self._anchor
            return at + int(self.monotonic() - since)
        return max(self.wall(), self._floor)


def tick() -> int:
    """The same, for who has no clock at hand."""
    return int(time.monotonic())
