"""Leases: which model a program on this device has open in its own process. They block nothing; the agent only counts them.

A lease is a locked file. The kernel lets go of the lock when the process ends, however it ends, so a dead one is never counted.
"""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .files import DISK, Files


class Lease:
    """One program's lease in the state folder `root`. Where it cannot be written there is none; the model serves all the same."""

    def __init__(self, root: Path) -> None:
        self._path = root / "leases" / f"{os.getpid()}-{secrets.token_hex(4)}.json"
        self._lock: int | None = None

    def hold(self, held: Mapping[str, Any]) -> None:
        """Say that this is what we serve from now on."""
        text = json.dumps({"pid": os.getpid(), **held}, sort_keys=True).encode()
        with contextlib.suppress(OSError):
            if self._lock is None:
                DISK.make(self._path.parent)
                self._lock = DISK.lock(self._path)
            DISK.write(self._path, text)

    def give_back(self) -> None:
        """We serve nothing any more."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                DISK.remove(self._path)
            DISK.unlock(self._lock)
            self._lock = None


def held(root: Path, files: Files = DISK) -> list[dict[str, Any]]:
    """What living programs say they serve; leases of dead ones are removed."""
    folder = root / "leases"
    with contextlib.suppress(OSError):
        return [lease for name in files.names(folder) if name.endswith(".json") for lease in _look(files, folder / name)]
    return []


def _look(files: Files, path: Path) -> Iterator[dict[str, Any]]:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        lock = files.lock(path)
        if lock is None:
            read = json.loads(files.read(path, 0, 4096) or b"{}")
            yield read if isinstance(read, dict) and isinstance(read.get("digest"), str) else {}
            return
        try:
            files.remove(path)
        finally:
            files.unlock(lock)
