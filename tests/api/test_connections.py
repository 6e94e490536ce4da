"""The bytes themselves, on the running manager: requests that can be read in two ways, that never end, that ask for more."""

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Iterator

import pytest
from manager_house import new_manager

from edgeops.api import connections, door
from edgeops.api.serve import Serving
from edgeops.manager.setup import Setup

pytestmark = pytest.mark.real
PATIENCE_S = 30.0
HOST = b"Host: localhost\r\n"


class Line:
    """A TLS connection one writes any bytes to."""

    def __init__(self, made: Setup, serving: Serving) -> None:
        context = ssl.create_default_context(cafile=made.ca)
        plain = socket.create_connection(("127.0.0.1", serving.port), PATIENCE_S)
        self.socket = context.wrap_socket(plain, server_hostname="localhost")

    def say(self, data: bytes) -> None:
        """Write; a connection that was ended meanwhile is what some tests want."""
        with contextlib.suppress(OSError):
            self.socket.sendall(data)

    def rest(self) -> bytes:
        """All that comes until the other side ends it."""
        found = b""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while piece := self.socket.recv(1 << 16):
                found += piece
        return found

    def ask(self, data: bytes) -> list[int]:
        """The statuses of all answers to these bytes, the last of which must end the connection."""
        self.say(data)
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", self.rest())]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    """A new manager."""
    return new_manager(tmp_path_factory.mktemp("line") / "m", int(time.time()))


@pytest.fixture(scope="module")
def serving(made: Setup) -> Iterator[Serving]:
    """The manager, running for all tests here: none of them changes it."""
    running = Serving(made.folder)
    yield running
    running.stop()


@pytest.fixture
def line(made: Setup, serving: Serving) -> Iterator[Line]:
    """A connection to the running manager."""
    opened = Line(made, serving)
    yield opened
    opened.socket.close()


CHUNK = b"0\r\n\r\n"
POST = b"POST /api/v1/enroll HTTP/1.1\r\n" + HOST
SMUGGLED = b"GET /api/v1/health HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
REQUESTS = {
    "length-and-chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNK,
    "two-lengths": POST + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
    "length-with-sign": POST + b"Content-Length: +5\r\n\r\nhello",
    "length-list": POST + b"Content-Length: 5, 6\r\n\r\nhello",
    "chunks-spelt-oddly": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNK,
    "chunks-twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + CHUNK,
    "space-before-colon": POST + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNK,
    "folded-header": b"GET /api/v1/health HTTP/1.1\r\n" + HOST + b"X: a\r\n\x00b\r\n\r\n",
    "no-host": b"GET /api/v1/health HTTP/1.1\r\n\r\n",
    "two-hosts": b"GET /api/v1/health HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "nul-in-header": b"GET /api/v1/health HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n",
    "space-in-target": b"GET /api/v1/health /x HTTP/1.1\r\n" + HOST + b"\r\n",
    "giant-header": b"GET /api/v1/health HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 200_000 + b"\r\n\r\n",
    "endless-headers": b"GET /api/v1/health HTTP/1.1\r\n" + HOST + b"X: a\r\n" * 60_000 + b"\r\n",
    "not-http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_that_can_be_read_in_two_ways_is_refused(line: Line, name: str) -> None:
    """One 400 and the end: what follows is never taken for a request of its own."""
    assert line.ask(REQUESTS[name] + SMUGGLED) == [400]


def test_two_tokens_are_none(line: Line, made: Setup) -> None:
    """With a good token first or last: a program before us may have looked at the other one."""
    good, bad = (f"Authorization: Bearer {text}\r\n".encode() for text in (made.admin_token, "edgeops_x"))
    head = b"GET /api/v1/devices HTTP/1.1\r\n" + HOST
    assert line.ask(head + good + bad + b"\r\n" + SMUGGLED) == [400]


def test_honest_requests_one_after_the_other_are_answered(line: Line) -> None:
    """Pipelined and in pieces, as HTTP/1.1 allows."""
    one = b"GET /api/v1/health HTTP/1.1\r\n" + HOST + b"\r\n"
    line.say(one[:20])
    line.say(one[20:])
    assert line.ask(one + SMUGGLED) == [200, 200, 200]


def test_who_says_nothing_is_not_waited_for(made: Setup, serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence, half a head, a head in drops, silence after an answer: each ends; a good caller beside them is answered."""
    monkeypatch.setattr(connections, "HEAD_S", 1.0)
    lines = [Line(made, serving) for _ in range(4)]
    starts = (b"", b"GET /api/v1/health HT", b"G", SMUGGLED.replace(b"close", b"keep-alive"))
    for one, start in zip(lines, starts, strict=True):
        one.say(start)
    began = time.monotonic()
    while time.monotonic() - began < 0.8:
        lines[2].say(b"X")
        time.sleep(0.1)
    other = Line(made, serving)
    assert other.ask(SMUGGLED) == [200]
    answers = [one.rest() for one in lines]
    assert time.monotonic() - began < PATIENCE_S / 2
    assert b"200 OK" in answers[3] and not any(b"200" in answer for answer in answers[:3])
    for one in [*lines, other]:
        one.socket.close()


def test_a_body_that_never_comes_is_given_up(line: Line, made: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's body in drops, and a caller's that stops: 408, and the connection ends."""
    monkeypatch.setattr(door, "STRANGERS_S", 0.5)
    monkeypatch.setattr(door, "CALLERS_S", 0.5)
    head = POST + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    assert line.ask(head) == [408]


@pytest.mark.parametrize(("method", "path"), [("POST", "/devices"), ("PUT", f"/objects/{'0' * 64}")])
def test_a_caller_s_body_that_stops_is_given_up(
    line: Line, made: Setup, monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    """Whoever has a token does not hold a connection for ever either, not even for an object."""
    monkeypatch.setattr(door, "CALLERS_S", 0.5)
    head = f"{method} /api/v1{path} HTTP/1.1\r\nAuthorization: Bearer {made.admin_token}\r\nContent-Length: 100\r\n".encode()
    assert line.ask(head + HOST + b"Content-Type: application/json\r\n\r\n{") == [408]


def test_nothing_but_requests_is_spoken(line: Line) -> None:
    """No WebSocket, no HTTP/2, no tunnel, no echo."""
    upgrade = b"GET /api/v1/health HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    line.say(upgrade + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
    assert line.ask(b"CONNECT evil.example:443 HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n") == [200, 401]


def test_answers_name_no_program(line: Line) -> None:
    """Neither what serves nor what it is written in."""
    line.say(SMUGGLED)
    assert b"server:" not in line.rest().lower()
