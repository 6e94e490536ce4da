"""HTTP/1.1 for local clients: blocking threads, one per connection and bounded; keep-alive, draining, room for those who ask.

While draining with a successor, idle connections are passed over to it unread, so that no request can fall between two workers.
"""

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edgeops.wire.errors import EdgeopsError, Misuse, Unfit

from .reading import Budget, HttpLimits, Reader, Request

LINGER_SECONDS = 2.0
ROOM_SECONDS = 1.0
UNASKED_SECONDS, IDLE_SECONDS = 0.1, 1.0
"""When all threads are taken: how long a connection may wait for its client without, and with, a whole request ever sent."""
_PHRASES = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
            411: "Length Required", 413: "Content Too Large", 431: "Request Header Fields Too Large",
            500: "Internal Server Error", 503: "Service Unavailable"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Response:
    """One reply: parts of the body are joined, `headers` are added to the usual ones."""

    status: int
    parts: Sequence[bytes] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


class HttpServer:
    """Serves inherited listening sockets; `answer` is called from connection threads and should raise only EdgeopsError."""

    def __init__(
        self,
        answer: Callable[[Request], Response],
        refuse: Callable[[EdgeopsError], Response],
        limits: HttpLimits | None = None,
    ) -> None:
        self._answer = answer
        self._refuse = refuse
        self._limits = limits or HttpLimits()
        self._budget = Budget(self._limits.bodies_bytes)
        self._wake_in, self._wake = socket.socketpair()
        self._readers: dict[Reader, threading.Thread] = {}
        self._changing = threading.Lock()
        self._left = threading.Condition(self._changing)
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

    def adopt(self, connection: socket.socket, wait: float = 0.0) -> None:
        """Serve a connection that another worker passed over, or that was just accepted; turned away when there is no room."""
        try:
            connection.settimeout(self._limits.request_seconds)
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:  # its client has gone already
            connection.close()
            return
        reader = Reader(connection, self._wake, self._limits, self._budget)
        thread = threading.Thread(target=self._converse, args=(reader,), name="connection", daemon=True)
        if not self._enter(reader, thread, time.monotonic() + wait):
            self._turn_away(connection)
            reader.close()
            return
        try:
            thread.start()
        except RuntimeError:  # no memory for its stack; the client may try again
            self._forget(reader)  # from here on nobody tells it to give up
            reader.close()

    def _enter(self, reader: Reader, thread: threading.Thread, until: float) -> bool:
        """A place for `reader`, if need be that of the connection which has kept its thread waiting longest."""
        with self._changing:
            while len(self._readers) >= self._limits.connections:
                if victim := self._longest_waiting():
                    del self._readers[victim]
                    victim.give_up()
                elif self.draining or time.monotonic() >= until:
                    return False
                else:
                    self._left.wait(0.02)
            self._readers[reader] = thread
            return True

    def _longest_waiting(self) -> Reader | None:
        now = time.monotonic()
        waiting = [
            (reader.since, reader) for reader in self._readers
            if reader.since is not None and now - reader.since > (IDLE_SECONDS if reader.asked else UNASKED_SECONDS)
        ]  # fmt: skip
        return min(waiting, key=lambda one: (one[1].asked, one[0]))[1] if waiting else None

    def _turn_away(self, connection: socket.socket) -> None:
        error = Unfit("connections", "too many connections at once; reuse one or try again later")
        with contextlib.suppress(OSError), connection:
            connection.settimeout(0.05)
            connection.sendall(_encode(self._refuse(error), keep=False))
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1 << 16)  # what stays unread would reset the connection under our answer

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
            waiting = list(self._readers.values())
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
                        self.adopt(by_fd[fd].accept()[0], ROOM_SECONDS)

    def _converse(self, reader: Reader) -> None:
        connection = reader.connection
        try:
            while self._wait(reader):
                request, response = self._exchange(reader)
                if response is None:
                    break
                keep = request is not None and request.headers.get("connection", "").lower() != "close"
                keep = keep and not (self.draining and self._pass_over is None)
                connection.sendall(_encode(response, keep))
                reader.since = time.monotonic()
                if not keep:
                    _linger(connection, request is None)
                    break
        except OSError:
            pass
        except MemoryError:  # not even for the reply
            pass
        finally:
            self._forget(reader)  # from here on nobody tells it to give up
            reader.close()

    def _exchange(self, reader: Reader) -> tuple[Request | None, Response | None]:
        """Read one request and make its reply: (None, reply) for one that cannot be read, (None, None) at the end of the stream."""
        request = None
        try:
            request = reader.request()
            if request is None:
                return None, None
            self._busy(reader)
            return request, self._answer(request)
        except EdgeopsError as error:
            return request, self._refuse(error)
        except MemoryError:
            return request, self._refuse(Unfit("memory", "the worker's memory limit does not allow this request"))
        except OSError:
            raise
        except Exception as error:  # a bug is an answer too
            return request, self._refuse(Misuse("internal", f"internal error: {type(error).__name__}"))
        finally:
            reader.release()

    def _busy(self, reader: Reader) -> None:
        """From now on it is us who are waited for; too late when the place was given away a moment ago."""
        with self._changing:
            if reader not in self._readers:
                raise ConnectionError
            reader.since, reader.asked = None, True

    def _forget(self, reader: Reader) -> None:
        with self._changing:
            self._readers.pop(reader, None)
            self._left.notify()

    def _wait(self, reader: Reader) -> bool:
        """Whether a request has begun to arrive; False when the connection was passed over or has to end."""
        if reader.pending:
            return True
        connection = reader.connection
        if not self.draining:
            ready = reader.poll.poll(self._limits.idle_seconds * 1000)
            if not ready or reader.given_up:
                return False
            if any(fd == connection.fileno() for fd, _ in ready):
                return True
        if self._pass_over is not None and self._pass_over(connection):
            return False
        reader.poll.unregister(self._wake)
        return bool(reader.poll.poll(max(0.0, self._close_at - time.monotonic()) * 1000)) and not reader.given_up


def _linger(connection: socket.socket, unread: bool) -> None:
    """Let the client read an error before the connection resets under the rest of its request."""
    until = time.monotonic() + LINGER_SECONDS
    if unread:
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(LINGER_SECONDS)
        while time.monotonic() < until and connection.recv(1 << 16):
            pass


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
