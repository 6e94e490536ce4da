"""Asking the manager over HTTPS, bounded in bytes and in seconds, whoever answers and however slowly."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from edgeops.wire.errors import Unreachable

from .reach import Way
from .tls import check_expiry, timeless

WHOLE_S = 30.0
MOST_BYTES = 1 << 20


def ask(way: Way, method: str, path: str, body: bytes | None, least: int | None) -> tuple[int, dict[str, Any]]:
    """Status and JSON object of one request; raises as `fetch` does."""
    status, data = fetch(way, method, path, body, least)
    return status, read_object(way, data)


def read_object(way: Way, data: bytes) -> dict[str, Any]:
    """The JSON object that a manager answered; raises Unreachable("manager-unreachable") when it is none."""
    try:
        answer = json.loads(data)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise Unreachable("manager-unreachable", f"{way.url} did not answer as a manager does: no JSON object")
    return answer


def fetch(way: Way, method: str, path: str, body: bytes | None, least: int | None) -> tuple[int, bytes]:
    """Status and body of one request; raises Unreachable("manager-unreachable" | "server-expired").

    `least` is the Unix time that has passed for sure. With None the server's dates are not looked at: then nothing may be believed
    but what proves itself.
    """
    try:
        with _cut_after(WHOLE_S) as opened, contextlib.ExitStack() as ended:
            parts = urlsplit(way.url)
            host, port = parts.hostname or "", parts.port or 443
            connection = HTTPConnection(host, port)
            ended.callback(connection.close)
            opened.append(socket.create_connection((host, port), WHOLE_S))
            opened.append(timeless(way.cas).wrap_socket(opened[0], server_hostname=host))
            if least is not None:
                check_expiry(opened[1], least)
            connection.sock = opened[1]
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            reply = connection.getresponse()
            data = reply.read(MOST_BYTES + 1)
            if len(data) > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES} bytes")
    except (OSError, HTTPException, ValueError) as error:
        raise Unreachable("manager-unreachable", f"{way.url} did not answer as a manager does: {error}") from None
    return reply.status, data


@contextlib.contextmanager
def _cut_after(seconds: float) -> Iterator[list[socket.socket]]:
    """Sockets that end after so many seconds, though each of their bytes may have come in time."""
    opened: list[socket.socket] = []

    def cut() -> None:
        for sock in opened:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield opened
    finally:
        timer.cancel()
        for sock in opened:
            sock.close()
