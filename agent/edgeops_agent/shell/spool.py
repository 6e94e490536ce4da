"""Telemetry windows on disk until they are sent: bounded in number and bytes, oldest dropped and counted."""

import contextlib
from pathlib import Path

from edgeops.wire.errors import Unfit

from .disk import write_whole
from .files import DISK, Files

MAX_FILES, MAX_BYTES = 2_000, 32 << 20


class Spool:
    """A folder of small files in order of arrival. Not durable to the last window: losing one is a gap, not an error."""

    def __init__(self, folder: Path, files: Files = DISK) -> None:
        self.folder, self._files = folder, files
        self.dropped = 0
        self._sizes: dict[int, int] = {}  # of each message, oldest first
        with contextlib.suppress(OSError):
            for number in sorted(int(name) for name in files.names(folder) if _is_number(name)):
                look = files.look(folder / str(number))
                self._sizes[number] = look.size if look else 0
        self._next = max(self._sizes, default=-1) + 1

    def add(self, data: bytes) -> None:
        """Keep one message; drops the oldest beyond the bound, or this one when the disk is full."""
        try:
            write_whole(self.folder / str(self._next), data, files=self._files)
        except Unfit:
            self.dropped += 1
            return
        self._sizes[self._next] = len(data)
        self._next += 1
        while len(self._sizes) > MAX_FILES or sum(self._sizes.values()) > MAX_BYTES:
            self.sent(next(iter(self._sizes)))
            self.dropped += 1

    def oldest(self) -> tuple[int, bytes] | None:
        """The next message to send, with its number; what cannot be read is dropped."""
        while self._sizes:
            number = next(iter(self._sizes))
            try:
                return number, self._files.read(self.folder / str(number))
            except OSError:
                del self._sizes[number]
                self.dropped += 1
        return None

    def sent(self, number: int) -> None:
        """Forget one message."""
        self._sizes.pop(number, None)
        with contextlib.suppress(OSError):
            self._files.remove(self.folder / str(number))


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) < 16
