"""`log/agent.log` in the agent's folder: the newest lines, for `edgeops-agent logs` where no journal keeps them.

Nothing relies on it, so nothing is synced; it is two files of 512 KB at most, and a disk that takes nothing costs lines only.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .logline import Line, read

MOST_BYTES = 512 << 10
LOOK_S = 0.25


class Logbook:
    """The log of the agent whose folder is `root`."""

    def __init__(self, root: Path) -> None:
        self.path = root / "log" / "agent.log"
        self.older = self.path.with_name("agent.log.1")

    def take(self, line: Line) -> bool:
        """Append a line; False when the disk did not take it. Opened anew each time, so that anybody may move the file away."""
        data = line.json().encode() + b"\n"
        try:
            self.path.parent.mkdir(mode=0o700, exist_ok=True)
            if self._size() + len(data) > MOST_BYTES:
                self.path.replace(self.older)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # what a full disk or a power cut left of a line
                data = b"\n" + data if torn else data
                return os.write(descriptor, data) == len(data)
            finally:
                os.close(descriptor)
        except OSError:
            return False

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def lines(self) -> Iterator[Line]:
        """All that is kept, in the order in which it was written."""
        for line in self.follow():
            if line is None:
                return
            yield line

    def follow(self, pause: float = LOOK_S) -> Iterator[Line | None]:
        """The same, then what is written from now on, for ever; None whenever there is no more for the moment."""
        with contextlib.ExitStack() as opened:
            current = self._open(self.path, opened)  # first, so that what is put aside in this moment is not missed
            if older := self._open(self.older, opened):
                yield from _read(older.read())
            while True:
                if current is not None:
                    yield from self._to_the_end(current, pause)
                else:
                    yield None
                    time.sleep(pause)
                opened.close()
                current = self._open(self.path, opened)

    def _to_the_end(self, file: BinaryIO, pause: float) -> Iterator[Line | None]:
        """Whole lines as they come, until the file was put aside and nothing more is in it."""
        rest = b""
        while True:
            aside = not self._is_current(file)
            data = file.read()
            whole, _, rest = (rest + data).rpartition(b"\n")
            yield from _read(whole)
            if aside and not data:
                return
            if not data:
                yield None
                time.sleep(pause)

    def _is_current(self, file: BinaryIO) -> bool:
        with contextlib.suppress(OSError):
            return self.path.stat().st_ino == os.fstat(file.fileno()).st_ino
        return False

    @staticmethod
    def _open(path: Path, opened: contextlib.ExitStack) -> BinaryIO | None:
        try:
            return opened.enter_context(path.open("rb"))
        except FileNotFoundError:
            return None


def _read(data: bytes) -> Iterator[Line]:
    for text in data.decode(errors="replace").split("\n"):
        if (line := read(text)) is not None:
            yield line
