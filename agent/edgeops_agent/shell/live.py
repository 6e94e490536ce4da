"""What a running agent knows and its record does not: asked for through `live.sock` in its folder, answered with one JSON object.

A socket and no file: nothing is written to a disk for it, it cannot be out of date, and nobody answers when no agent runs.
"""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .journal import say

ASK_S, MOST_BYTES = 2.0, 1 << 20
SHORT = 90  # a socket's address may have about a hundred bytes


class Live:
    """Answers everybody who may enter the folder `root` with `view()`; they can ask nothing else and change nothing."""

    def __init__(self, root: Path, view: Callable[[], Mapping[str, Any]]) -> None:
        self._root, self._view = root, view
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Begin answering. An agent that cannot goes on without; the folder must be claimed, for what lies there is replaced."""
        sock = socket.socket(socket.AF_UNIX)
        try:
            (self._root / "live.sock").unlink(missing_ok=True)
            with _address(self._root) as address:
                sock.bind(address)
            (self._root / "live.sock").chmod(0o600)
            sock.listen(4)
        except OSError as error:
            sock.close()
            say("disk", f"`edgeops-agent status` can say less, for live.sock cannot be opened: {error}", "warn")
            return
        self._socket = sock
        threading.Thread(target=self._answer, args=(sock,), name="live", daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                (self._root / "live.sock").unlink()
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()

    def _answer(self, sock: socket.socket) -> None:
        while True:
            try:
                asking, _ = sock.accept()
            except OSError:
                return
            with asking, contextlib.suppress(OSError, RuntimeError):  # a dict that grew while we looked: whoever asks, asks again
                asking.settimeout(ASK_S)
                asking.sendall(json.dumps(self._view()).encode())


def ask(root: Path) -> dict[str, Any] | None:
    """What the agent that runs on the folder `root` says; None when none answers."""
    with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(ASK_S)
        with _address(root) as address:
            sock.connect(address)
        said = b""
        while (more := sock.recv(1 << 16)) and len(said) < MOST_BYTES:
            said += more
        found = json.loads(said)
        return found if isinstance(found, dict) else None
    return None


@contextlib.contextmanager
def _address(root: Path) -> Iterator[str]:
    """The socket's path, by way of an open folder where it would be too long (Linux)."""
    path = root / "live.sock"
    if len(os.fsencode(path)) <= SHORT:
        yield str(path)
        return
    descriptor = os.open(root, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        yield f"/proc/self/fd/{descriptor}/live.sock"
    finally:
        os.close(descriptor)
