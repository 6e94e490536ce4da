"""Telemetry windows on disk until they are sent: bounded, oldest dropped and counted."""

import contextlib
from pathlib import Path

from edgeops.wire.errors import Unfit

from .disk import write_whole

MAX_FILES = 2_000


class Spool:
    """A folder of small files in order of arrival. Not durable to the last window: losing one is a gap, not an error."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dropped = 0
        names = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
        self._names = names
        self._next = names[-1] + 1 if names else 0

    def add(self, data: bytes) -> None:
        """Keep one message; drops the oldest beyond the bound, or this one when the disk is full."""
        try:
            write_whole(self.folder / str(self._next), data)
        except Unfit:
            self.dropped += 1
            return
        self._names.append(self._next)
        self._next += 1
        while len(self._names) > MAX_FILES:
            self._remove(self._names.pop(0))
            self.dropped += 1

    def oldest(self) -> tuple[int, bytes] | None:
        """The next message to send, with its number; what cannot be read is dropped."""
        while self._names:
            try:
                return self._names[0], (self.folder / str(self._names[0])).read_bytes()
            except OSError:
                self._names.pop(0)
                self.dropped += 1
        return None

    def sent(self, number: int) -> None:
        """Forget one message."""
        if number in self._names:
            self._names.remove(number)
        self._remove(number)

    def _remove(self, number: int) -> None:
        with contextlib.suppress(OSError):
            (self.folder / str(number)).unlink()
