"""Looking for bit rot while nothing hurries: every object of the builds that are kept is read again, a little at a time."""

import contextlib
import hashlib
from collections.abc import Callable, Iterable

from edgeops.wire.errors import EdgeopsError
from edgeops.wire.release import Side

from .disk import StateFolder

STEP_BYTES = 256 << 10
STEP_S, CALM_S, ROUND_S = 1.0, 600.0, 86_400.0


class Scrub:
    """One round a day, begun ten minutes after the start: at most STEP_BYTES a second, so that nobody notices.

    `objects` says what should be there. An object that is not what its name says is removed: nothing may load it.
    """

    def __init__(self, folder: StateFolder, objects: Callable[[], Iterable[Side]], now: Callable[[], float]) -> None:
        self._folder, self._objects, self._now = folder, objects, now
        self._left: list[Side] = []
        self._at, self._hash = 0, hashlib.sha256()
        self._due = self._round = now() + CALM_S
        self.rounds = 0

    def look(self) -> Side | None:
        """Read a little, if it is time; a damaged object when one was found. Never raises."""
        now = self._now()
        if now < self._due:
            return None
        self._due = now + STEP_S
        if self._left:
            return self._read(self._left[-1])
        if now >= self._round:
            self._round, self._left = now + ROUND_S, list({side.sha256: side for side in self._objects()}.values())
        return None

    def _read(self, side: Side) -> Side | None:
        try:
            data = self._folder.files.read(self._folder.objects / side.sha256, self._at, STEP_BYTES)
        except OSError:
            return self._suspect(side)
        self._hash.update(data)
        self._at += len(data)
        if data and self._at < side.size:
            return None
        if self._hash.hexdigest() != side.sha256:
            return self._suspect(side)
        self._next()
        return None

    def _next(self) -> None:
        self._at, self._hash = 0, hashlib.sha256()
        self._left.pop()
        self.rounds += not self._left

    def _suspect(self, side: Side) -> Side | None:
        """A second, whole look decides: it may have been swept, or fetched anew, between two steps."""
        self._next()
        if side not in self._objects():
            return None
        try:
            self._folder.read(side.sha256, side.size)
        except EdgeopsError:
            with contextlib.suppress(OSError):  # one that cannot even be read is fetched anew, to another place of the disk
                self._folder.files.remove(self._folder.objects / side.sha256)
            return side
        return None
