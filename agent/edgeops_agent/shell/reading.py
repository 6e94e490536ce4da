"""Reading HTTP/1.1 requests off a connection, within limits: nothing is allocated because a client claims it will send it."""

import contextlib
import os
import select
import socket
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgeops.wire.errors import Misuse, Unfit

MAX_HEAD = 16 << 10
CHUNK = 1 << 16
STEP = 1 << 20


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of the server: connections, body bytes (of one, also after decompression, and of all together), seconds for one
    request and for idling."""

    connections: int = 32
    body_bytes: int = 64 << 20
    bodies_bytes: int = 64 << 20
    request_seconds: float = 20.0
    idle_seconds: float = 75.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request; header names are lower case, the body is decoded."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: memoryview


class Budget:
    """Bytes of large bodies that all connections together may hold."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._changing = threading.Lock()

    def take(self, size: int) -> None:
        """Raises Unfit("busy") when others hold too much."""
        with self._changing:
            if self._held + size > self._most:
                raise Unfit("busy", "other clients are sending large requests; try again in a moment")
            self._held += size

    def give(self, size: int) -> None:
        """Back."""
        with self._changing:
            self._held -= size


class Reader:
    """One connection. `since` is when it began to wait for its client (None while it is being answered), `asked` whether it ever
    sent a whole request; `poll` tells of the connection and of `wake`."""

    def __init__(self, connection: socket.socket, wake: socket.socket, limits: HttpLimits, budget: Budget) -> None:
        self.connection = connection
        self.poll = select.poll()
        self.poll.register(connection, select.POLLIN)
        self.poll.register(wake, select.POLLIN)
        self._end, self._begin = os.pipe()  # a `shutdown` would wake a waiting thread too, but no worker may call it
        self._quiet = select.poll()
        for poll in (self.poll, self._quiet):
            poll.register(self._end, select.POLLIN)
        self._quiet.register(connection, select.POLLIN)
        self.given_up = False
        self.pending = b""
        self.since: float | None = time.monotonic()
        self.asked = False
        self._limits, self._budget = limits, budget
        self._taken = 0

    def give_up(self) -> None:
        """Make the thread that waits for this client stop waiting; from any thread."""
        self.given_up = True
        with contextlib.suppress(OSError):
            os.write(self._begin, b"x")

    def close(self) -> None:
        """Close the connection; by its own thread, once."""
        self.connection.close()
        for fd in (self._end, self._begin):
            os.close(fd)

    def request(self) -> Request | None:
        """The next request, None at the end of the stream; raises Misuse for what is malformed, too large or too slow."""
        deadline = time.monotonic() + self._limits.request_seconds
        head = self.pending
        try:
            while (end := head.find(b"\r\n\r\n", 0, MAX_HEAD)) < 0:
                if len(head) >= MAX_HEAD:
                    raise Misuse("head-too-large", f"the request head is larger than {MAX_HEAD} bytes")
                chunk = self._receive(deadline)
                if not chunk:
                    return None
                head += chunk
            self.pending = head[end + 4 :]
            method, path, headers = _parse_head(head[:end])
            return Request(method, path, headers, self._body(headers, deadline))
        except TimeoutError:
            raise Misuse("too-slow", f"the request was not whole after {self._limits.request_seconds:g} s") from None

    def release(self) -> None:
        """The request is answered: give its bytes back."""
        if self._taken:
            self._budget.give(self._taken)
            self._taken = 0

    def _take(self, size: int) -> None:
        self._budget.take(size)
        self._taken += size

    def _body(self, headers: Mapping[str, str], deadline: float) -> memoryview:
        if "transfer-encoding" in headers:
            raise Misuse("length-required", "chunked bodies are not read; send Content-Length")
        text = headers.get("content-length", "0")
        size = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else -1
        if size < 0:
            raise Misuse("bad-request", f"Content-Length {text[:32]!r} is not a number")
        if size > self._limits.body_bytes:
            raise Misuse("body-too-large", f"the body has {size} bytes, the limit is {self._limits.body_bytes}")
        if len(self.pending) >= size:
            body, self.pending = memoryview(self.pending)[:size], self.pending[size:]
        else:
            if headers.get("expect", "").lower() == "100-continue":
                self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = self._receive_rest(size, deadline)
        encoding = headers.get("content-encoding", "identity").lower()
        return body if encoding == "identity" else _inflate(body, encoding, self._limits.body_bytes, self._take)

    def _receive_rest(self, size: int, deadline: float) -> memoryview:
        """The rest of a body: small ones at once, large ones as they come."""
        buffer = bytearray(self.pending)
        self.pending = b""
        while (at := len(buffer)) < size:
            step = min(STEP, size - at)
            if size > STEP:
                self._take(step)
            buffer.extend(bytes(step))
            with memoryview(buffer) as view:
                self._fill(view[at:], deadline)
        return memoryview(buffer)

    def _fill(self, view: memoryview, deadline: float) -> None:
        at = progress = 0
        while at < len(view):
            self._await(deadline)
            got = self.connection.recv_into(view[at:])
            if not got:
                raise ConnectionError
            at += got
            if at - progress >= CHUNK:
                progress, self.since = at, time.monotonic()

    def _receive(self, deadline: float) -> bytes:
        self._await(deadline)
        return self.connection.recv(CHUNK)

    def _await(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0 or not self._quiet.poll(left * 1000):
            raise TimeoutError
        if self.given_up:
            raise ConnectionError


def _parse_head(head: bytes) -> tuple[str, str, dict[str, str]]:
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or words[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise Misuse("bad-request", "the request line is not HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        key = name.lower()
        if not colon or not name or name != name.strip() or (key == "content-length" and key in headers):
            raise Misuse("bad-request", "a header is malformed")
        headers[key] = value.strip()
    if words[2] == "HTTP/1.0":
        headers["connection"] = headers.get("connection", "close")
    return words[0], words[1], headers


def _inflate(body: memoryview, encoding: str, limit: int, take: Callable[[int], None]) -> memoryview:
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Misuse("bad-request", f"Content-Encoding {encoding[:32]} is not read; use gzip, deflate or none")
    inflater = zlib.decompressobj(wbits=47)
    plain = bytearray()
    rest: bytes | memoryview = body
    try:
        while rest and not inflater.eof:
            step = inflater.decompress(rest, STEP)
            rest = inflater.unconsumed_tail
            if len(plain) + len(step) > limit:
                raise Misuse("body-too-large", f"the body is larger than {limit} bytes after decompression")
            take(len(step))
            plain += step
    except zlib.error as error:
        raise Misuse("bad-request", f"the {encoding} body is damaged: {error}") from None
    if not inflater.eof:
        raise Misuse("bad-request", f"the {encoding} body is cut off")
    return memoryview(plain)
