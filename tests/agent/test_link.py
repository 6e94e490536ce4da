"""The device's link against a broker that is not what it should be: real TLS, a few bytes of MQTT, every bad turn."""

import datetime
import ipaddress
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from edgeops.wire.errors import Misuse
from edgeops_agent.shell.link import STABLE_S, DeviceLink, LinkSettings, new_client
from edgeops_agent.shell.reach import Way

CONNACK = b"\x20\x02\x00\x00"
REFUSAL = b"\x20\x02\x00\x05"
MESSAGE = b"\x30\x05\x00\x01tab"
DAY = datetime.timedelta(days=1)


def certify(folder: Path, begins: datetime.timedelta) -> None:
    """A self-signed certificate for loopback that is valid for five days, beginning so long from now; `crt` and `key`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    first = datetime.datetime.now(datetime.UTC) + begins
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
        .not_valid_before(first).not_valid_after(first + 5 * DAY).add_extension(x509.BasicConstraints(True, None), True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "crt").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


class Broker:
    """A TLS server that gives its n-th visitor the n-th of `answers` after CONNECT (the last one for all others)."""

    def __init__(self, folder: Path, *answers: bytes) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "crt", folder / "key")
        self._answers = answers
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtts://127.0.0.1:{self._sock.getsockname()[1]}"
        self._open: list[ssl.SSLSocket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        visits = 0
        while True:
            try:
                sock = self._context.wrap_socket(self._sock.accept()[0], server_side=True)
                if sock.recv(4096):
                    sock.sendall(self._answers[min(visits, len(self._answers) - 1)])
                    visits += 1
                    self._open.append(sock)
            except OSError:
                if self._sock.fileno() < 0:
                    return

    def close(self) -> None:
        """Stop."""
        self._sock.close()
        for sock in self._open:
            sock.close()


Visit = Callable[..., "queue.Queue[str]"]


@pytest.fixture
def visit(tmp_path: Path) -> Iterator[Visit]:
    """Start a broker and a link to it; gives a queue of "up" and of topics heard."""
    ends: list[Callable[[], None]] = []

    def start(*answers: bytes, begins: datetime.timedelta = -DAY, least: int = 0) -> "queue.Queue[str]":
        certify(tmp_path, begins)
        broker = Broker(tmp_path, *answers)
        ways = (Way(broker.url, (tmp_path / "crt").read_text(), 1),)
        settings = LinkSettings(ways, "pi-01", tmp_path / "crt", tmp_path / "key", "e/1/00/d/pi-01/up/presence", b"gone")
        heard: queue.Queue[str] = queue.Queue()
        link = DeviceLink(
            settings, lambda: heard.put("up"), lambda topic, _: heard.put(topic), lambda: 0.0, lambda: 0.0, lambda: least
        )
        link.start()
        ends.extend((link.stop, broker.close))
        return heard

    yield start
    for end in ends:
        end()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    "nonsense",
    [b"\x30\x02\x00\x09", b"\x40\x00", b"\xf0\x00", b"\x30\xff\xff\xff\xff\xff", b"\x20\x01\x00", b"\x90\x00", b"\x62\x01\x00",
     bytes(1000), b"\xff" * 1000],
    ids=repr,
)  # fmt: skip
def test_a_broker_that_talks_nonsense(visit: Visit, nonsense: bytes) -> None:
    """Whatever comes after the first CONNACK, or instead of it: the link is up again at the next try and hears what is sent."""
    for first in (CONNACK + nonsense, nonsense):
        heard = visit(first, CONNACK + MESSAGE)
        while heard.get(timeout=20) != "t":
            pass


def test_a_topic_that_is_no_text(visit: Visit) -> None:
    """A message whose topic is not UTF-8 is handed on without one (to be counted), and the next message on the line is heard."""
    heard = visit(CONNACK + b"\x30\x03\x00\x01\xff" + MESSAGE)
    assert [heard.get(timeout=20) for _ in range(3)] == ["up", "", "t"]


def test_a_device_without_a_clock_connects(visit: Visit) -> None:
    """A broker whose certificate begins in the device's future is believed: the device stands in 1970."""
    assert visit(CONNACK, begins=1000 * DAY).get(timeout=20) == "up"


def test_an_expired_broker_is_refused_when_that_is_sure(visit: Visit) -> None:
    """A certificate that ended before a time that was signed is refused; before one that nobody signed it is not."""
    assert visit(CONNACK, begins=-1000 * DAY).get(timeout=20) == "up"
    late = int((datetime.datetime.now(datetime.UTC) - 500 * DAY).timestamp())
    with pytest.raises(queue.Empty):
        visit(CONNACK, begins=-1000 * DAY, least=late).get(timeout=1)


def test_tls_files_that_cannot_be_used(tmp_path: Path) -> None:
    """Damaged or missing files are named; the link lives on without them, since new ones can be asked for."""
    certify(tmp_path, -DAY)
    cas = (tmp_path / "crt").read_text()
    for broken in ("crt", "key", "ca"):
        files = {name: tmp_path / name for name in ("crt", "key")}
        files[broken] = tmp_path / "broken"
        for content in (b"rubbish", b"\xff\xfe", None):
            (tmp_path / "broken").unlink(missing_ok=True)
            if content is not None:
                (tmp_path / "broken").write_bytes(content)
            way = Way("mqtts://127.0.0.1:1", "rubbish" if broken == "ca" else cas, 1)
            settings = LinkSettings((way,), "x", files["crt"], files["key"], "t", b"")
            with pytest.raises(Misuse, match="tls-files"):
                new_client(settings, way)


def test_the_next_endpoint_is_tried(tmp_path: Path) -> None:
    """No broker, one of a foreign CA and one that shuts everybody out are passed over, in order, for one that answers."""
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    certify(tmp_path, -DAY)
    certify(foreign, -DAY)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"mqtts://127.0.0.1:{closed.getsockname()[1]}"
    cas, brokers = (tmp_path / "crt").read_text(), [Broker(foreign, CONNACK), Broker(tmp_path, REFUSAL), Broker(tmp_path, CONNACK)]
    urls = [nobody, *(broker.url for broker in brokers)]
    heard: queue.Queue[str] = queue.Queue()
    settings = LinkSettings(tuple(Way(url, cas, 1) for url in urls), "pi-01", tmp_path / "crt", tmp_path / "key", "t", b"")
    link = DeviceLink(settings, lambda: heard.put("up"), lambda *_: None, lambda: 0.0, lambda: 0.0, lambda: 0)
    link.start()
    try:
        assert heard.get(timeout=20) == "up"
        assert link.way is not None and link.way.url == urls[-1]
    finally:
        link.stop()
        for broker in brokers:
            broker.close()


def test_refusals_are_counted_and_changed_settings_used_at_once(tmp_path: Path) -> None:
    """A broker that hears us and lets us not in counts; new settings end what was, start anew and count from nought."""
    certify(tmp_path, -DAY)
    cas, bad, good = (tmp_path / "crt").read_text(), Broker(tmp_path, REFUSAL), Broker(tmp_path, CONNACK)
    seen, heard = threading.Event(), queue.Queue[str]()

    def draw() -> float:
        if link.refused >= 3:
            seen.set()
        return 0.0

    settings = LinkSettings((Way(bad.url, cas, 1),), "pi-01", tmp_path / "crt", tmp_path / "key", "t", b"")
    link = DeviceLink(settings, lambda: heard.put("up"), lambda *_: None, draw, lambda: 0.0, lambda: 0)
    link.start()
    try:
        assert seen.wait(20)
        link.change(replace(settings, ways=(Way(good.url, cas, 2),)))
        assert heard.get(timeout=20) == "up"
        assert link.refused == 0 and link.way is not None and link.way.site == 2
        link.change(replace(settings, ways=(Way(good.url, cas, 3),)))
        assert heard.get(timeout=20) == "up" and link.way.site == 3
    finally:
        link.stop()
        bad.close()
        good.close()


class Waits(threading.Event):
    """Takes down how long the link waits between its visits, and lets no time pass; after so many it ends the link."""

    def __init__(self, link: DeviceLink, most: int) -> None:
        super().__init__()
        self._link, self._most, self.taken = link, most, list[float]()

    def wait(self, timeout: float | None = None) -> bool:
        """As an event's."""
        self.taken.append(timeout or 0.0)
        if len(self.taken) == self._most:
            self._link._stopping.set()
        return False


def test_whoever_is_kicked_waits_longer_each_time() -> None:
    """A broker that lets a device in and drops it at once is asked ever more rarely, with full jitter; one that kept it is not."""
    lasting = [0.1] * 9 + [STABLE_S + 1] + [0.1] * 3
    settings = LinkSettings((Way("mqtts://one:1", "", 1),), "pi-01", Path("crt"), Path("key"), "topic", b"gone")
    for share in (0.5, 1.0):
        clock = [0.0]
        link = DeviceLink(settings, lambda: None, lambda *_: None, lambda: share, lambda: clock[0], lambda: 0)  # noqa: B023
        seconds = iter(lasting)

        def visit(_way: Way) -> None:
            clock[0] += next(seconds)  # noqa: B023

        link._visit = visit  # type: ignore[method-assign]
        link._nudged = waits = Waits(link, len(lasting))
        link._keep_connected()
        assert waits.taken == [share * wait for wait in (2, 4, 8, 16, 32, 60, 60, 60, 60, 1, 2, 4, 8)]
