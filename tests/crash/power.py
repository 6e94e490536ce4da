"""Power that goes at the n-th call to a simulated disk. After it every further call fails too, as nothing runs without power.

`fate` says what becomes of what was never synced: it is kept, torn in the middle, or lost, names that were changed in folders
included.
"""

from pathlib import Path
from typing import Any

from .cache import SimDisk

FATES = ("kept", "torn", "lost")


class PowerCut(BaseException):
    """The power goes; nobody catches this."""


class Power:
    """Cuts at call number `cut` (never with 0). `deaf` makes syncs of files, or of folders, do nothing, as a seeded bug does."""

    def __init__(self, disk: SimDisk, cut: int, deaf: str = "") -> None:
        self.files: Any = Deaf(disk, deaf) if deaf else disk
        self._disk, self._left, self._dead = disk, cut, False
        self.calls = 0
        disk.watch = self._step

    def _step(self, _name: str, _path: str) -> None:
        self.calls += 1
        self._left -= 1
        if self._dead or self._left == 0:
            self._dead = True
            raise PowerCut

    def back(self, fate: str) -> SimDisk:
        """What the disk holds when the power comes back."""
        return SimDisk.of(self._disk.image(fate))


class Deaf:
    """A disk that does not sync `what`: files or folders."""

    def __init__(self, disk: SimDisk, what: str) -> None:
        self._disk, self._what = disk, what

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)

    def sync(self, path: Path) -> None:
        """Not that."""
        if (str(path) in self._disk.folders) != (self._what == "folders"):
            self._disk.sync(path)
