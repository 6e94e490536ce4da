"""The disk as the agent uses it: twelve calls, and the real ones. No other file of the shell opens, writes or deletes what is kept.

What is written is not durable before `sync` of the file, and a name that is new, moved or gone not before `sync` of its folder.
Every call raises the OSError of the file system.
"""

import contextlib
import errno
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PRIVATE = 0o600
"""For files that hold keys and for what is written in place."""


@dataclass(frozen=True, slots=True)
class Look:
    """What lies at a path: bytes of content, bytes it takes on the disk, permission bits, owner."""

    size: int
    taken: int
    mode: int
    owner: int


class Files(Protocol):
    """A disk."""

    def read(self, path: Path, at: int = 0, most: int = -1) -> bytes:
        """The bytes from `at` on, all or at most so many."""

    def write(self, path: Path, data: bytes, mode: int = 0o644) -> None:
        """The file holds `data` and nothing else; it is made when it is not there."""

    def patch(self, path: Path, at: int, data: bytes) -> None:
        """Overwrite in place from `at` on; the file is made, for its owner only, when it is not there."""

    def sync(self, path: Path) -> None:
        """Return when what a file holds, or which names a folder holds, outlives a power cut."""

    def replace(self, source: Path, target: Path) -> None:
        """Move a file over another one."""

    def remove(self, path: Path) -> None:
        """The file is not there any more."""

    def names(self, folder: Path) -> list[str]:
        """What lies in a folder, sorted."""

    def look(self, path: Path) -> Look | None:
        """What lies there; None for nothing."""

    def make(self, folder: Path) -> None:
        """The folder is there, with those above it, and closed to other users."""

    def free(self, folder: Path) -> int:
        """Bytes that can still be written there."""

    def lock(self, path: Path) -> int | None:
        """Hold the lock of a file, which is made when it is not there and says who we are; None while another process holds it."""

    def unlock(self, lock: int) -> None:
        """Let go of it; so does the end of the process."""


class Disk:
    """The real disk."""

    def read(self, path: Path, at: int = 0, most: int = -1) -> bytes:
        """See Files."""
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # a pipe that lies there is not waited for
            file.seek(at)
            return file.read(most)

    def write(self, path: Path, data: bytes, mode: int = 0o644) -> None:
        """See Files."""
        _put(path, os.O_TRUNC, mode, 0, data)

    def patch(self, path: Path, at: int, data: bytes) -> None:
        """See Files."""
        _put(path, 0, PRIVATE, at, data)

    def sync(self, path: Path) -> None:
        """See Files."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        """See Files."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """See Files."""
        path.unlink(missing_ok=True)

    def names(self, folder: Path) -> list[str]:
        """See Files."""
        return sorted(os.listdir(folder))  # noqa: PTH208 - names, not paths

    def look(self, path: Path) -> Look | None:
        """See Files."""
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        return Look(status.st_size, status.st_blocks * 512, status.st_mode & 0o777, status.st_uid)

    def make(self, folder: Path) -> None:
        """See Files."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)

    def free(self, folder: Path) -> int:
        """See Files."""
        status = os.statvfs(folder)
        return status.f_bavail * status.f_frsize

    def lock(self, path: Path) -> int | None:
        """See Files."""
        descriptor = _open_lock(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        with contextlib.suppress(OSError):  # the number is for people; the lock holds without it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d" % os.getpid(), 0)
        return descriptor

    def unlock(self, lock: int) -> None:
        """See Files."""
        with contextlib.suppress(OSError):  # it is let go of even where closing fails
            os.close(lock)


def _open_lock(path: Path) -> int:
    """Locking needs no writing: where nothing can be made or written, the file that is there will do."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, PRIVATE)
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT):
            with contextlib.suppress(OSError):
                return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        raise


def _put(path: Path, flags: int, mode: int, at: int, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flags, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.seek(at)
        file.write(data)


DISK = Disk()
