"""Who sends more than any honest device can is shut out at the broker for a while, so that the link stays free for others. Pure.

An honest device that was away for long empties its spool of at most 2,000 windows at once; the limit lies well above.
"""

from collections.abc import Collection

SPAN_S, MOST_IN_SPAN = 10.0, 6_000
SHUT_OUT_S = 600.0


class Quarantine:
    """Names and until when (seconds of whatever clock `look` is given)."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    @property
    def names(self) -> frozenset[str]:
        """Who is shut out now."""
        return frozenset(self._until)

    def look(self, loud: Collection[str], now: float) -> bool:
        """Let go those whose time is over and shut out the loud; whether the broker must be told."""
        before = self.names
        self._until = {name: until for name, until in self._until.items() if until > now}
        self._until |= dict.fromkeys(filter(None, loud), now + SHUT_OUT_S)
        return self.names != before
