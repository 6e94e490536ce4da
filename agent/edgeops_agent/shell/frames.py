"""Frames between supervisor and worker: a 4-byte big-endian length, then one CBOR map; file descriptors may ride along.

A frame is small, since a worker that a model has taken over may send any: what CBOR makes of it is many times its size.
"""

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import cbor2

MAX_FRAME = 128 << 10
MAX_FDS = 8


class Channel:
    """One end of the control socketpair. Sending is safe from several threads, receiving belongs to one."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sending = threading.Lock()
        self.broken = False

    def send(self, message: Mapping[str, Any], fds: Sequence[int] = ()) -> bool:
        """Send one frame (and open file descriptors with it); False when the other end is gone."""
        body = cbor2.dumps(dict(message))
        frame = struct.pack(">I", len(body)) + body
        try:
            with self._sending:
                sent = socket.send_fds(self._sock, [frame], list(fds)) if fds else 0
                self._sock.sendall(frame[sent:])
        except OSError:
            return False
        return True

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """Wait for one frame; None at its end, and on what is none or over MAX_FRAME: then the channel is `broken`."""
        fds: list[int] = []
        message = None
        with contextlib.suppress(Exception):  # cbor2 raises many kinds; none of them may escape
            head, fds, _, _ = socket.recv_fds(self._sock, 4, MAX_FDS)
            head += self._exactly(4 - len(head)) if head else b""
            (size,) = struct.unpack(">I", head)
            body = self._exactly(size) if 0 < size <= MAX_FRAME else b""
            self.broken = bool(body) or not 0 < size <= MAX_FRAME  # until it is read: a stream that just ends is not
            message = cbor2.loads(body)
        if isinstance(message, dict):
            self.broken = False
            return message, list(fds)
        for fd in fds:
            os.close(fd)
        return None

    def shut(self) -> None:
        """End both directions, so that the other end leaves; `close` comes later."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this end; the other one sees the end of the stream."""
        self._sock.close()

    def _exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            chunk = self._sock.recv(min(size - len(parts), 1 << 16))
            if not chunk:
                return b""
            parts += chunk
        return bytes(parts)
