"""Leases: which model a program on this device has open in its own process. They block nothing; the agent only counts them.

A lease is a locked file. The kernel lets go of the lock when the process ends, however it ends, so a dead one is never counted.
"""

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class Lease:
    """One program's lease in the state folder `root`. Where it cannot be written there is none; the model serves all the same."""

    def __init__(self, root: Path) -> None:
        self._path = root / "leases" / f"{os.getpid()}-{secrets.token_hex(4)}.json"
        self._file = -1

    def hold(self, held: Mapping[str, Any]) -> None:
        """Say that this is what we serve from now on."""
        text = json.dumps({"pid": os.getpid(), **held}, sort_keys=True).encode()
        with contextlib.suppress(OSError):
            if self._file < 0:
                self._path.parent.mkdir(exist_ok=True)
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
                fcntl.flock(self._file, fcntl.LOCK_EX)
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, text, 0)

    def give_back(self) -> None:
        """We serve nothing any more."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                self._path.unlink()
            os.close(self._file)
            self._file = -1


def held(root: Path) -> list[dict[str, Any]]:
    """What living programs say they serve; leases of dead ones are removed."""
    return [lease for path in sorted((root / "leases").glob("*.json")) for lease in _look(path)]


def _look(path: Path) -> Iterator[dict[str, Any]]:
    with contextlib.suppress(OSError, ValueError):
        descriptor = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            read = json.loads(os.pread(descriptor, 4096, 0) or b"{}")
            yield read if isinstance(read, dict) else {}
        else:
            path.unlink()
        finally:
            os.close(descriptor)
