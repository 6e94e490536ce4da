"""Frames between supervisor and worker: a 4-byte big-endian length, then one CBOR map; file descriptors may ride along."""

import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import cbor2

MAX_FRAME = 16 << 20
MAX_FDS = 8


class Channel:
    """One end of the control socketpair. Sending is safe from several threads, receiving belongs to one."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sending = threading.Lock()

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
        """Wait for one frame; None at the end of the stream, on a broken one, or on a frame over 16 MiB."""
        try:
            head, fds, _, _ = socket.recv_fds(self._sock, 4, MAX_FDS)
            head += self._exactly(4 - len(head)) if head else b""
            if len(head) < 4:
                return None
            (size,) = struct.unpack(">I", head)
            body = self._exactly(size) if size <= MAX_FRAME else b""
            message = cbor2.loads(body) if len(body) == size else None
        except (OSError, ValueError, EOFError):
            return None
        return (message, list(fds)) if isinstance(message, dict) else None

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
