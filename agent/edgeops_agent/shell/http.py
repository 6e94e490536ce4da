"""HTTP/1.1 for local clients: blocking threads, one per connection and bounded; keep-alive, draining, strict limits.

While draining with a successor, idle connections are passed over to it unread, so that no request can fall between two workers.
"""

import contextlib
import select
import socket
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edgeops.wire.errors import EdgeopsError, Misuse, Unfit

MAX_HEAD = 16 << 10
LINGER_SECONDS = 2.0
_PHRASES = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 411: "Length Required",
            413: "Content Too Large", 500: "Internal Server Error", 503: "Service Unavailable"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of the server: connections, body bytes (also after decompression), seconds for one request and for idling."""

    connections: int = 32
    body_bytes: int = 64 << 20
    request_seconds: float = 20.0
    idle_seconds: float = 75.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request; header names are lower case, the body is decoded."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: memoryview


@dataclass(frozen=True, slots=True)
class Response:
    """One reply: parts of the body are joined, `headers` are added to the usual ones."""

    status: int
    parts: Sequence[bytes] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


class HttpServer:
    """Serves inherited listening sockets; `answer` is called from connection threads and raises only EdgeopsError."""

    def __init__(
        self,
        answer: Callable[[Request], Response],
        refuse: Callable[[EdgeopsError], Response],
        limits: HttpLimits | None = None,
    ) -> None:
        self._answer = answer
        self._refuse = refuse
        self._limits = limits or HttpLimits()
        self._wake_in, self._wake = socket.socketpair()
        self._threads: set[threading.Thread] = set()
        self._changing = threading.Lock()
        self._accepting: threading.Thread | None = None
        self._pass_over: Callable[[socket.socket], bool] | None = None
        self._close_at = float("inf")
        self.draining = False

    def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Begin to accept on these sockets."""
        for sock in sockets:
            sock.setblocking(False)
        self._accepting = threading.Thread(target=self._accept, args=(list(sockets),), name="accept", daemon=True)
        self._accepting.start()

    def adopt(self, connection: socket.socket) -> None:
        """Serve a connection that another worker passed over (or that was just accepted)."""
        connection.settimeout(self._limits.request_seconds)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        thread = threading.Thread(target=self._converse, args=(connection,), name="connection", daemon=True)
        with self._changing:
            full = len(self._threads) >= self._limits.connections
            if not full:
                self._threads.add(thread)
        if full:
            with contextlib.suppress(OSError), connection:
                error = Unfit("connections", "too many connections at once; reuse one or try again later")
                connection.sendall(_encode(self._refuse(error), keep=False))
            return
        try:
            thread.start()
        except RuntimeError:  # no memory for its stack; the client may try again
            connection.close()
            self._forget(thread)

    def drain(self, pass_over: Callable[[socket.socket], bool] | None, seconds: float) -> int:
        """Stop accepting, finish what is in flight, pass idle connections over or close them; returns how many were cut off.

        `pass_over` takes an idle connection and returns whether somebody else serves it now. Without it, idle clients may still
        send one request (answered with `Connection: close`) until `seconds` are over.
        """
        self._pass_over = pass_over
        self._close_at = time.monotonic() + seconds
        self.draining = True
        self._wake_in.close()
        if self._accepting is not None:
            self._accepting.join()
        with self._changing:
            waiting = list(self._threads)
        for thread in waiting:
            thread.join(max(0.0, self._close_at + 0.5 - time.monotonic()))
        return sum(thread.is_alive() for thread in waiting)

    def _accept(self, sockets: list[socket.socket]) -> None:
        poll = select.poll()
        by_fd = {sock.fileno(): sock for sock in sockets}
        for fd in (*by_fd, self._wake.fileno()):
            poll.register(fd, select.POLLIN)
        while not self.draining:
            for fd, _ in poll.poll():
                if fd in by_fd and not self.draining:
                    with contextlib.suppress(OSError):  # another worker was faster
                        self.adopt(by_fd[fd].accept()[0])

    def _converse(self, connection: socket.socket) -> None:
        reader = _Reader(connection, self._wake, self._limits)
        try:
            while self._wait(reader):
                request = None
                try:
                    request = reader.request()
                    if request is None:
                        break
                    response = self._answer(request)
                except EdgeopsError as error:
                    response = self._refuse(error)
                except MemoryError:
                    response = self._refuse(Unfit("memory", "the worker's memory limit does not allow this request"))
                keep = request is not None and request.headers.get("connection", "").lower() != "close"
                keep = keep and not (self.draining and self._pass_over is None)
                connection.sendall(_encode(response, keep))
                if not keep:
                    _linger(connection, request is None)
                    break
        except OSError:
            pass
        finally:
            connection.close()
            self._forget(threading.current_thread())

    def _forget(self, thread: threading.Thread) -> None:
        with self._changing:
            self._threads.discard(thread)

    def _wait(self, reader: "_Reader") -> bool:
        """Whether a request has begun to arrive; False when the connection was passed over or has to end."""
        if reader.pending:
            return True
        connection = reader.connection
        if not self.draining:
            ready = reader.poll.poll(self._limits.idle_seconds * 1000)
            if not ready:
                return False
            if any(fd == connection.fileno() for fd, _ in ready):
                return True
        if self._pass_over is not None and self._pass_over(connection):
            return False
        reader.poll.unregister(self._wake)
        return bool(reader.poll.poll(max(0.0, self._close_at - time.monotonic()) * 1000))


class _Reader:
    """Reads requests off one connection, within the limits."""

    def __init__(self, connection: socket.socket, wake: socket.socket, limits: HttpLimits) -> None:
        self.connection = connection
        self.poll = select.poll()
        self.poll.register(connection, select.POLLIN)
        self.poll.register(wake, select.POLLIN)
        self.pending = b""
        self._limits = limits

    def request(self) -> Request | None:
        """The next request, None at the end of the stream; raises Misuse for what is malformed or too large."""
        deadline = time.monotonic() + self._limits.request_seconds
        head = self.pending
        while (end := head.find(b"\r\n\r\n", 0, MAX_HEAD)) < 0:
            if len(head) >= MAX_HEAD:
                raise Misuse("head-too-large", f"the request head is larger than {MAX_HEAD} bytes")
            chunk = self._receive(deadline)
            if not chunk:
                return None
            head += chunk
        self.pending = head[end + 4 :]
        method, path, headers = _parse_head(head[:end])
        body = self._body(headers, deadline)
        return Request(method, path, headers, body)

    def _body(self, headers: Mapping[str, str], deadline: float) -> memoryview:
        if "transfer-encoding" in headers:
            raise Misuse("length-required", "chunked bodies are not read; send Content-Length")
        text = headers.get("content-length", "0")
        size = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else -1
        if size < 0:
            raise Misuse("bad-request", f"Content-Length {text!r} is not a number")
        if size > self._limits.body_bytes:
            raise Misuse("body-too-large", f"the body has {size} bytes, the limit is {self._limits.body_bytes}")
        if len(self.pending) >= size:
            body, self.pending = memoryview(self.pending)[:size], self.pending[size:]
        else:
            if headers.get("expect", "").lower() == "100-continue":
                self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = self._receive_rest(size, deadline)
        encoding = headers.get("content-encoding", "identity").lower()
        return body if encoding == "identity" else _inflate(body, encoding, self._limits.body_bytes)

    def _receive_rest(self, size: int, deadline: float) -> memoryview:
        buffer = bytearray(size)
        view = memoryview(buffer)
        at = len(self.pending)
        view[:at] = self.pending
        self.pending = b""
        while at < size:
            if time.monotonic() > deadline:
                raise TimeoutError
            got = self.connection.recv_into(view[at:])
            if not got:
                raise ConnectionError
            at += got
        return view

    def _receive(self, deadline: float) -> bytes:
        if time.monotonic() > deadline:
            raise TimeoutError
        return self.connection.recv(1 << 16)


def _linger(connection: socket.socket, unread: bool) -> None:
    """Let the client read an error before the connection resets under the rest of its request."""
    until = time.monotonic() + LINGER_SECONDS
    if unread:
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(LINGER_SECONDS)
        while time.monotonic() < until and connection.recv(1 << 16):
            pass


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


def _inflate(body: memoryview, encoding: str, limit: int) -> memoryview:
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Misuse("bad-request", f"Content-Encoding {encoding} is not read; use gzip, deflate or none")
    inflater = zlib.decompressobj(wbits=47)
    try:
        plain = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise Misuse("bad-request", f"the {encoding} body is damaged: {error}") from None
    if len(plain) > limit:
        raise Misuse("body-too-large", f"the body is larger than {limit} bytes after decompression")
    if not inflater.eof:
        raise Misuse("bad-request", f"the {encoding} body is cut off")
    return memoryview(plain)


def _encode(response: Response, keep: bool) -> bytes:
    size = sum(map(len, response.parts))
    head = f"HTTP/1.1 {response.status} {_PHRASES.get(response.status, 'Error')}\r\nContent-Length: {size}\r\n"
    if size:
        head += f"Content-Type: {response.content_type}\r\n"
    for name, value in response.headers.items():
        head += f"{name}: {value}\r\n"
    if not keep:
        head += "Connection: close\r\n"
    return b"".join(((head + "\r\n").encode("latin-1"), *response.parts))
