"""Log lines on standard output, for the journal. A log that cannot be written must not stop a device."""

import contextlib
import time
from collections.abc import Callable

QUIET_S = 10.0


def say(text: str) -> None:
    """One line; dropped when nobody can take it (a full disk, a closed pipe)."""
    with contextlib.suppress(OSError, ValueError):
        print(text, flush=True)  # noqa: T201


class Sparing:
    """Lines that others can provoke: each kind at most once in ten seconds, with how many were left out."""

    def __init__(self, write: Callable[[str], None] = say, now: Callable[[], float] = time.monotonic) -> None:
        self._write, self._now = write, now
        self._last: dict[str, tuple[float, int]] = {}

    def say(self, kind: str, text: str) -> None:
        """Write `text` unless this kind was written a moment ago. `kind` must come from a small set."""
        at, left_out = self._last.get(kind, (float("-inf"), 0))
        if self._now() - at < QUIET_S:
            self._last[kind] = (at, left_out + 1)
            return
        self._write(f"{text} (and {left_out} more like it)" if left_out else text)
        self._last[kind] = (self._now(), 0)
