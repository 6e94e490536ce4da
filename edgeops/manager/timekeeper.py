"""The time that devices are told. They believe no earlier one in this epoch, so a clock that jumped must not be signed.

The latest time told is kept for each epoch, in the database. What our monotonic clock explains is signed, and a week more, since a
manager may have been off: that is less than half the life of a desired document, so even a wrong week locks nobody out. A greater
jump needs an operator's word. So does a step back, which devices would refuse.
"""

import logging
import time
from collections.abc import Callable

from sqlalchemy import Connection

from edgeops.store import rows
from edgeops.store.tables import marks
from edgeops.wire.root import Root

_LOG = logging.getLogger("edgeops.manager")
AHEAD_S, BACK_S, KEEP_S, TELL_S = 7 * 86_400, 300, 60, 3600.0


class Timekeeper:
    """One for a running manager; `monotonic` gives seconds that no clock setting moves."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._since: tuple[str, int, float] = ("", 0, 0.0)
        self._kept = -1
        self._told_at = float("-inf")

    def tell(self, tx: Connection, root: Root, now: int) -> int | None:
        """The time to sign when the clock says `now`, None while the clock is not believed."""
        name, mark, elapsed = mark_of(root), latest(tx, root), self._monotonic()
        if self._since[0] != name or mark != self._kept:  # we have just started, or somebody has accepted another time
            self._since, self._kept = (name, mark, elapsed), mark
        explained = self._since[1] + int(elapsed - self._since[2])
        if problem := doubt(now, mark, explained):
            self._warn(problem)
            return None
        if now - mark >= KEEP_S:
            accept(tx, root, now)
            self._kept = now
        return max(now, mark)

    def _warn(self, problem: str) -> None:
        if self._monotonic() - self._told_at >= TELL_S:
            self._told_at = self._monotonic()
            _LOG.warning("devices are told no time: %s", problem)


def doubt(now: int, mark: int, explained: int) -> str:
    """Why a clock that says `now` is not believed, when `mark` was told last and `explained` is what should have passed; or ""."""
    if now < mark - BACK_S:
        return f"this machine's clock is {mark - now} s behind the latest time signed; set it, or run `edgeops time accept`"
    if now > explained + AHEAD_S:
        days = (now - explained) // 86_400
        return f"this machine's clock is {days} days ahead of what can be explained; set it, or run `edgeops time accept`"
    return ""


def mark_of(root: Root) -> str:
    """The name of the mark of this epoch."""
    return f"time.{root.epoch}"


def latest(tx: Connection, root: Root) -> int:
    """The latest time told in this epoch (Unix seconds), at first when its root was issued."""
    row = rows.get(tx, marks, name=mark_of(root))
    return int(row["value"]) if row else root.issued


def accept(tx: Connection, root: Root, now: int) -> None:
    """From here on time goes on from `now`."""
    rows.put(tx, marks, name=mark_of(root), value=now)
