"""A throw-away certificate authority, a bare MQTT client that shows every byte's effect, and both brokers."""

import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from edgeops.broker import RunningBroker, start_broker

from .authority import Authority

PATIENCE_S = 10.0


def _text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("!H", len(raw)) + raw


def packet(head: int, body: bytes) -> bytes:
    """One MQTT packet."""
    length, size = b"", len(body)
    while True:
        size, digit = divmod(size, 128)
        length += bytes([digit | (128 if size else 0)])
        if not size:
            return bytes([head]) + length + body


class Wire:
    """A bare MQTT 3.1.1 client on a blocking TLS socket; acknowledges what it gets and keeps it in `got`."""

    def __init__(self, port: int, ca: Path, identity: tuple[Path, Path] | None) -> None:
        context = ssl.create_default_context(cafile=str(ca))
        if identity:
            context.load_cert_chain(*identity)
        raw = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.socket = context.wrap_socket(raw, server_hostname="127.0.0.1")
        self.got: list[tuple[str, bytes, bool]] = []
        self.granted: list[int] = []
        self._mid = 0

    def connect(self, client_id: str, *, will: tuple[str, bytes] | None = None, keepalive: int = 60) -> int:
        """Send CONNECT, return the CONNACK's code; raises OSError if the connection ends instead."""
        flags, body = 2, _text(client_id)
        if will:
            flags, body = flags | 0x0C, body + _text(will[0]) + _text(will[1])
        self.socket.sendall(packet(0x10, _text("MQTT") + bytes([4, flags]) + struct.pack("!H", keepalive) + body))
        head, answer = self.read()
        assert head == 0x20
        return answer[1]

    def read(self) -> tuple[int, bytes]:
        """The next packet's first byte and body; raises ConnectionError at the end of the stream."""
        head = self._exactly(1)[0]
        size = shift = 0
        while True:
            digit = self._exactly(1)[0]
            size |= (digit & 127) << shift
            shift += 7
            if digit < 128:
                return head, self._exactly(size)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ConnectionError("the broker closed the connection")
            data += more
        return data

    def send(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """PUBLISH without waiting for the acknowledgement."""
        self._mid += 1
        mid = struct.pack("!H", self._mid) if qos else b""
        self.socket.sendall(packet(0x30 | qos << 1 | retain, _text(topic) + mid + payload))

    def subscribe(self, *filters: str) -> list[int]:
        """SUBSCRIBE at QoS 1 and return the granted codes."""
        self._mid += 1
        body = b"".join(_text(one) + b"\1" for one in filters)
        self.socket.sendall(packet(0x82, struct.pack("!H", self._mid) + body))
        self.granted = []
        self._until(lambda: bool(self.granted))
        return self.granted

    def ping(self) -> None:
        """Keep the connection alive."""
        self.socket.sendall(b"\xc0\x00")

    def settled(self) -> bool:
        """True once all that the broker sent before answering a ping has arrived; False if it ended the connection."""
        try:
            self.ping()
            while self.step() != 0xD0:
                pass
        except OSError:
            return False
        return True

    def until(self, payload: bytes) -> list[tuple[str, bytes, bool]]:
        """Receive until a message with this payload came; returns all messages so far as (topic, payload, retained)."""
        self._until(lambda: any(one[1] == payload for one in self.got))
        return self.got

    def _until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < deadline, f"not seen in time; got {self.got}"
            self.step()

    def step(self) -> int:
        """Take one packet from the socket; returns its first byte."""
        head, body = self.read()
        if head & 0xF0 == 0x90:
            self.granted = list(body[2:])
        if head & 0xF0 != 0x30:
            return head
        size = struct.unpack("!H", body[:2])[0]
        topic, rest = body[2 : 2 + size].decode(), body[2 + size :]
        if head & 6:
            self.socket.sendall(packet(0x40, rest[:2]))
            rest = rest[2:]
        self.got.append((topic, rest, bool(head & 1)))
        return head

    def closed_within(self, seconds: float) -> bool:
        """True if the broker ends the connection within `seconds`."""
        self.socket.settimeout(seconds)
        try:
            while True:
                self.step()
        except TimeoutError:
            return False
        except OSError:
            return True

    def drop(self) -> None:
        """Vanish without DISCONNECT."""
        self.socket.close()


def poll(true: Callable[[], bool], seconds: float = PATIENCE_S) -> bool:
    """Poll `true` until it holds or the time is over."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@dataclass
class Site:
    """A running broker and its CA."""

    broker: RunningBroker
    pki: Authority
    wires: list[Wire] = field(default_factory=list)
    eventually = staticmethod(poll)

    def memory(self) -> int:
        """Resident bytes of our processes' children: all brokers of this run."""
        return sum(child.memory_info().rss for child in psutil.Process().children(recursive=True))

    def wire(self, name: str | None, **more: bool) -> Wire:
        """A TLS connection with the certificate of `name` (None: without one)."""
        wire = Wire(self.broker.port, self.pki.ca_path, self.pki.issue(name, **more) if name else None)
        self.wires.append(wire)
        return wire

    def online(self, name: str, *filters: str, will: tuple[str, bytes] | None = None) -> Wire:
        """`name` connected under its own name and subscribed."""
        wire = self.wire(name)
        assert wire.connect(name, will=will) == 0
        if filters:
            wire.subscribe(*filters)
        return wire


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The CA of all brokers of this run."""
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def pki_of_its_own(tmp_path: Path) -> Authority:
    """A CA a test may revoke from."""
    return Authority(tmp_path / "own-ca")


@pytest.fixture(scope="session")
def running(each_kind: str, pki: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """One long-lived broker of each kind."""
    broker = start_broker(each_kind, pki.plan(tmp_path_factory.mktemp("broker")))
    yield broker
    broker.stop()


@pytest.fixture
def site(running: RunningBroker, pki: Authority) -> Iterator[Site]:
    """The long-lived broker with connections that end with the test."""
    site = Site(running, pki)
    yield site
    for wire in site.wires:
        wire.drop()


@pytest.fixture
def make_site(pki: Authority) -> Iterator[Callable[..., Site]]:
    """Wraps a test's own broker; everything ends with the test."""
    made: list[Site] = []

    def make(broker: RunningBroker, own: Authority = pki) -> Site:
        made.append(Site(broker, own))
        return made[-1]

    yield make
    for site in made:
        for wire in site.wires:
            wire.drop()
        site.broker.stop()


@pytest.fixture
def eventually() -> Callable[..., bool]:
    """Polls a condition until a deadline."""
    return poll
