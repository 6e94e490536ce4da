"""Files written whole (beside, flushed, renamed; private ones never readable by others), and the lock of one manager a folder."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeops.wire.errors import Misuse


def write_whole(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace `path` by `data` atomically; it is on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fchmod(out.fileno(), mode)
            os.fsync(out.fileno())
        Path(temporary).replace(path)
        _sync(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_changed(path: Path, data: bytes, mode: int = 0o644) -> bool:
    """Write what is not written already; whether it was not."""
    if path.exists() and path.read_bytes() == data:
        return False
    write_whole(path, data, mode)
    return True


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold `lock`; raises Misuse("already-running") when another process does. However a process ends, its lock ends with it."""
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
            text = f"a manager is running in {lock.parent} already (process {who}); stop it first, or use another folder"
            raise Misuse("already-running", text) from None
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)
