"""A folder whose power goes: the real file calls of this process, counted, cut at the n-th, and what was not synced undone.

Only the folder given is watched. After the cut every further call fails too, as nothing runs without power. `fate` says what
becomes of what was never synced: it is kept, torn in the middle, or lost, names that were changed in folders included.
"""

import os
import pathlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

FATES = ("kept", "torn", "lost")
WRITES = os.O_WRONLY | os.O_RDWR
_open, _fdopen, _fsync, _replace, _unlink, _close, _path_open = (
    os.open, os.fdopen, os.fsync, os.replace, os.unlink, os.close, pathlib.Path.open
)  # fmt: skip


class PowerCut(BaseException):
    """The power goes; nobody catches this."""


class Written:
    """A file open for writing; nothing of it is buffered here."""

    def __init__(self, power: "Power", descriptor: int, path: str) -> None:
        self._power, self._descriptor, self._path = power, descriptor, path

    def __enter__(self) -> "Written":
        return self

    def __exit__(self, *_: object) -> None:
        _close(self._descriptor)

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def tell(self) -> int:
        """Where the next byte goes."""
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def seek(self, at: int) -> int:
        """Where the next byte goes."""
        return os.lseek(self._descriptor, at, os.SEEK_SET)

    def flush(self) -> None:
        """Nothing waits here."""

    def write(self, data: bytes) -> int:
        """Write, or write half of it and lose power."""
        self._power.touch(self._path)
        if data and self._power.fate == "torn" and self._power.left == 1:
            os.write(self._descriptor, data[: len(data) // 2])
        if data:
            self._power.step()
        return os.write(self._descriptor, data)


class Power:
    """Cuts at call number `cut` (never with 0). `deaf` makes syncs of files, or of folders, do nothing, as a seeded bug does."""

    def __init__(self, root: pathlib.Path, cut: int, fate: str = "kept", deaf: str = "") -> None:
        self.root, self.left, self.fate, self.deaf = str(root), cut, fate, deaf
        self.calls = 0
        self.dead = False
        self._names: dict[int, str] = {}
        self._dirty: dict[str, bytes | None] = {}
        self._entries: list[tuple[str, str, bytes | None]] = []

    def step(self) -> None:
        """One call; raises PowerCut when it is the one, and ever after."""
        self.calls += 1
        self.left -= 1
        if self.dead or self.left == 0:
            self.dead = True
            raise PowerCut

    def touch(self, path: str) -> None:
        """The file will hold something that is not synced; remember what is."""
        if path not in self._dirty:
            self._dirty[path] = _content(path)

    def _ours(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self.root)

    def _opened(self, path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if self._ours(path) and flags & WRITES and not os.fspath(path).endswith("lock"):
            self.touch(os.fspath(path))
            self.step()
        descriptor = _open(path, flags, *rest, **more)
        self._names.pop(descriptor, None)
        if self._ours(path):
            self._names[descriptor] = os.fspath(path)
        return descriptor

    def _wrapped(self, descriptor: int, *rest: Any, **more: Any) -> Any:
        name = self._names.get(descriptor)
        return _fdopen(descriptor, *rest, **more) if name is None else Written(self, descriptor, name)

    def _path_opened(self, path: pathlib.Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if not self._ours(path) or mode[0] == "r":
            return _path_open(path, mode, *rest, **more)
        start = os.O_APPEND if mode[0] == "a" else os.O_TRUNC
        file = Written(self, self._opened(path, os.O_WRONLY | os.O_CREAT | start, 0o644), str(path))
        os.lseek(file.fileno(), 0, os.SEEK_END)
        return file

    def _synced(self, descriptor: int) -> None:
        name = self._names.get(descriptor)
        if name is None:
            return _fsync(descriptor)
        self.step()
        if pathlib.Path(name).is_dir():
            if self.deaf != "folders":
                self._entries = [entry for entry in self._entries if str(pathlib.Path(entry[1]).parent) != name]
        elif self.deaf != "files":
            self._dirty.pop(name, None)
        return None

    def _replaced(self, source: Any, target: Any) -> None:
        if self._ours(target):
            self.step()
            source, target = os.fspath(source), os.fspath(target)
            self._entries.append(("replace", target, _content(target)))
            if source in self._dirty:
                self._dirty[target] = b""
                del self._dirty[source]
        _replace(source, target)

    def _unlinked(self, path: Any, **more: Any) -> None:
        if self._ours(path) and pathlib.Path(path).exists():
            self.step()
            self._entries.append(("unlink", os.fspath(path), _content(os.fspath(path))))
            self._dirty.pop(os.fspath(path), None)
        _unlink(path, **more)

    def settle(self) -> None:
        """What the disk holds when the power comes back."""
        for path, before in self._dirty.items():
            now = _content(path)
            if self.fate == "kept" or now is None:
                continue
            old = before or b""
            torn = now[: len(now) // 2] + old[len(now) // 2 :] if self.fate == "torn" else old
            pathlib.Path(path).write_bytes(torn)
        for _, path, before in reversed(self._entries if self.fate == "lost" else []):
            pathlib.Path(path).unlink(missing_ok=True) if before is None else pathlib.Path(path).write_bytes(before)

    @contextmanager
    def on(self) -> Iterator["Power"]:
        """Power is on; whatever happens, the disk is settled at the end if it went."""
        power = self

        def path_open(path: pathlib.Path, *rest: Any, **more: Any) -> Any:
            return power._path_opened(path, *rest, **more)

        calls: tuple[tuple[Any, str, Callable[..., Any]], ...] = (
            (os, "open", self._opened), (os, "fdopen", self._wrapped), (os, "fsync", self._synced), (os, "replace", self._replaced),
            (os, "unlink", self._unlinked), (pathlib.Path, "open", path_open),
        )  # fmt: skip
        patches = [mock.patch.object(where, name, call) for where, name, call in calls]
        for patch in patches:
            patch.start()
        try:
            yield self
        finally:
            for patch in reversed(patches):
                patch.stop()
            if self.dead:
                self.settle()


def _content(path: str) -> bytes | None:
    descriptor = -1
    try:
        descriptor = _open(path, os.O_RDONLY)
        found = b""
        while chunk := os.read(descriptor, 1 << 20):
            found += chunk
        return found
    except FileNotFoundError:
        return None
    finally:
        if descriptor >= 0:
            _close(descriptor)
