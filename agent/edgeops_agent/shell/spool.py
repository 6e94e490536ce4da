"""Telemetry windows on disk until they are sent: bounded, oldest dropped and counted."""

import contextlib
from pathlib import Path

from edgeops.wire.errors import Unfit

from .disk import write_whole
from .files import DISK, Files

MAX_FILES = 2_000


class Spool:
    """A folder of small files in order of arrival. Not durable to the last window: losing one is a gap, not an error."""

    def __init__(self, folder: Path, files: Files = DISK) -> None:
        self.folder, self._files = folder, files
        self.dropped = 0
        self._names: list[int] = []
        with contextlib.suppress(OSError):
            self._names = sorted(int(name) for name in files.names(folder) if name.isdigit())
        self._next = self._names[-1] + 1 if self._names else 0

    def add(self, data: bytes) -> None:
        """Keep one message; drops the oldest beyond the bound, or this one when the disk is full."""
        try:
            write_whole(self.folder / str(self._next), data, files=self._files)
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
                return self._names[0], self._files.read(self.folder / str(self._names[0]))
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
            self._files.remove(self.folder / str(number))
