"""A throw-away certificate authority, a bare MQTT client that shows every byte's effect, and both brokers."""

import datetime
import ipaddress
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgeops.broker import BrokerPlan, RunningBroker, start_broker
from edgeops.broker.mosquitto import find_mosquitto

DAY = datetime.timedelta(days=1)
PATIENCE_S = 10.0


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass
class Authority:
    """A CA in a folder: `issue` writes certificate and key and returns their paths."""

    folder: Path
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    serials: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        builder = self._builder("test CA", self.key, 1, 30).add_extension(x509.BasicConstraints(True, None), True)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        self.cert = builder.add_extension(usage, True).sign(self.key, hashes.SHA256())
        self.ca_path = self.folder / "ca.pem"
        self.ca_path.write_bytes(self.cert.public_bytes(serialization.Encoding.PEM))
        self.crl_path = self.folder / "crl.pem"
        self.revoke()

    def _builder(self, name: str, key: ec.EllipticCurvePrivateKey, age: int, days: int) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(_name(name)).issuer_name(_name("test CA"))
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        return builder.not_valid_before(now - age * DAY).not_valid_after(now + days * DAY)

    def issue(self, name: str, *, server: bool = False, expired: bool = False) -> tuple[Path, Path]:
        """Certificate and key for `name`; issued once."""
        cert, key_path = self.folder / f"{name}{expired:d}.pem", self.folder / f"{name}{expired:d}.key"
        if cert.exists():
            return cert, key_path
        key = ec.generate_private_key(ec.SECP256R1())
        use = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = self._builder(name, key, 3, -1 if expired else 9).add_extension(x509.ExtendedKeyUsage([use]), False)
        if server:
            names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        made = builder.sign(self.key, hashes.SHA256())
        self.serials[name] = made.serial_number
        cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        form = serialization.PrivateFormat.PKCS8
        key_path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        return cert, key_path

    def revoke(self, *names: str) -> None:
        """Write a revocation list that holds `names`."""
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(_name("test CA"))
        builder = builder.last_update(now - DAY + datetime.timedelta(hours=len(names))).next_update(now + DAY)
        for name in names:
            entry = x509.RevokedCertificateBuilder().serial_number(self.serials[name]).revocation_date(now).build()
            builder = builder.add_revoked_certificate(entry)
        self.crl_path.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def plan(self, folder: Path, port: int = 0, *, crl: bool = False) -> BrokerPlan:
        """A broker on loopback with this CA."""
        cert, key = self.issue("server", server=True)
        return BrokerPlan(folder, "127.0.0.1", port, self.ca_path, cert, key, self.crl_path if crl else None)


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


def need(kind: str) -> None:
    """Fail on CI, skip elsewhere, where mosquitto is not installed."""
    if kind == "mosquitto" and find_mosquitto() is None:
        reason = "mosquitto is not installed: apt install mosquitto / brew install mosquitto"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


@pytest.fixture(params=["mosquitto", "built-in"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which broker a test starts by itself."""
    need(request.param)
    return str(request.param)


@pytest.fixture(scope="session", params=["mosquitto", "built-in"])
def running(request: pytest.FixtureRequest, pki: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """One long-lived broker of each kind."""
    need(request.param)
    broker = start_broker(request.param, pki.plan(tmp_path_factory.mktemp("broker")))
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
