"""Revocation on both brokers with live connections: who is out is silent and stays out, and nobody else notices."""

import concurrent.futures
import contextlib
import queue
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from manager_house import FakeDevice, new_manager

from edgeops.api.serve import Serving
from edgeops.broker.knock import Visitor, knock
from edgeops.manager import enrol as enrolment
from edgeops.manager import pki
from edgeops.manager.hub import open_hub
from edgeops.manager.setup import Setup
from edgeops.store import rows
from edgeops.store.tables import devices
from edgeops.wire import topics

from ..conftest import Score
from .line import PATIENCE_S, Connected, enrol

pytestmark = pytest.mark.real
MOST_S = 5.0


@pytest.fixture
def made(kind: str, tmp_path: Path) -> Setup:
    """A new manager with each broker in turn."""
    return new_manager(tmp_path / "m", int(time.time()), broker=kind)


class Live(Connected):
    """A device on the broker that notes when its connection ends and never comes back by itself."""

    def __init__(self, device: FakeDevice, folder: Path, port: int) -> None:
        self.gone: queue.Queue[float] = queue.Queue()
        super().__init__(device, folder, port)
        self.client.on_disconnect = lambda *_args: self._ended()

    def _ended(self) -> None:
        self.gone.put(time.monotonic())
        threading.Thread(target=self.client.loop_stop, daemon=True).start()

    def up(self) -> bool:
        """Whether its first connection still stands."""
        return self.gone.empty() and self.client.is_connected()


@pytest.fixture
def live(serving: Serving, http: httpx.Client, tmp_path: Path) -> Iterator[Callable[[str], Live]]:
    """Enrols a device and connects it."""
    found: list[Live] = []

    def connect(name: str) -> Live:
        folder = tmp_path / f"{name}-{len(found)}"
        device = enrol(http, folder, name)
        found.append(Live(device, folder, serving.running.broker.port))
        return found[-1]

    yield connect
    for one in found:
        one.close()


def is_refused(folder: Path, name: str, port: int) -> bool:
    """Whether the broker turns a device's own certificate away; that it takes it is said by its CONNACK."""
    visitor = Visitor(name, (folder / "crt").read_bytes(), (folder / "key").read_bytes())
    answer = knock("localhost", port, folder / "ca", visitor)
    assert answer in ("accepted", "revoked", "closed")
    return answer != "accepted"


def status(http: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    """A POST that must succeed."""
    found: dict[str, Any] = http.post(path, json=body).raise_for_status().json()
    return found


def test_a_revoked_device_is_silent_and_stays_out(
    serving: Serving, http: httpx.Client, live: Callable[[str], Live], tmp_path: Path, kind: str, tell: Callable[[str], None],
    score: Score,
) -> None:  # fmt: skip
    """Its session ends, its certificate is refused, the answer says so and how long it took; of the rest no message is lost."""
    victim, other = live("pi-1"), live("pi-2")
    began, topic = time.monotonic(), topics.down("pi-2", "cmd")
    sent, stop = [], threading.Event()

    def talk() -> None:
        while not stop.wait(0.005):
            sent.append(str(len(sent)).encode())
            serving.running.link.publish(topic, sent[-1], 1, False)

    talking = threading.Thread(target=talk)
    talking.start()
    answer = status(http, "/devices/pi-1/revoke")
    assert answer["silenced"] is True and answer["missing"] == ""
    gone = victim.gone.get(timeout=MOST_S) - began
    stop.set()
    talking.join()
    assert gone < MOST_S and answer["silenced_ms"] < MOST_S * 1000
    assert is_refused(tmp_path / "pi-1-0", "pi-1", serving.running.broker.port)
    got = []
    while not sent or got[-1:] != sent[-1:]:
        where, payload = other.next()
        got += [payload] if where == topic else []
    assert got == sent and other.up()
    assert [row["action"] for row in http.get("/audit").json()["audit"]][-2:] == ["device-revoke", "device-silenced"]
    score.refused(f"{kind}-session-after-revocation", "session-ended")
    score.refused(f"{kind}-certificate-after-revocation", "certificate-refused")
    tell(f"revocation on {kind}: session gone after {gone * 1000:.0f} ms, shown after {answer['silenced_ms']} ms")


def test_fifty_at_once(
    serving: Serving, http: httpx.Client, live: Callable[[str], Live], tmp_path: Path, kind: str, tell: Callable[[str], None]
) -> None:
    """Fifty revocations that come together are each shown, and each live session is gone in time."""
    victims = [live(f"pi-{number}") for number in range(50)]
    other = live("stays")
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda one: status(http, f"/devices/{one.device.id}/revoke"), victims))
    took = time.monotonic() - began
    assert all(answer["silenced"] for answer in answers), answers
    assert max(answer["silenced_ms"] for answer in answers) < MOST_S * 1000
    assert all(one.gone.get(timeout=MOST_S) for one in victims) and other.up()
    port = serving.running.broker.port
    assert all(is_refused(tmp_path / f"pi-{number}-{number}", f"pi-{number}", port) for number in (0, 24, 49))
    slowest = max(answer["silenced_ms"] for answer in answers)
    tell(f"fifty revocations on {kind}: {took:.1f} s in all, the slowest shown after {slowest} ms")


def test_the_session_of_an_older_incarnation_ends(
    serving: Serving, http: httpx.Client, live: Callable[[str], Live], tmp_path: Path
) -> None:
    """A device that enrols again after a re-flash: before it has its answer, whoever held the old keys is off the broker."""
    old = live("pi-1")
    new = live("pi-1")
    assert old.gone.get(timeout=MOST_S) and http.get("/devices/pi-1").json()["incarnation"] == 2
    assert is_refused(tmp_path / "pi-1-0", "pi-1", serving.running.broker.port) and new.up()


def test_a_certificate_replaced_by_a_renewal_is_revoked_too(
    serving: Serving, http: httpx.Client, live: Callable[[str], Live], tmp_path: Path
) -> None:
    """Revocation covers every certificate that still works, not only the newest."""
    old = live("pi-1")
    kind = {"content-type": "application/json"}
    answer = http.post("/renew", content=old.device.renewal(), headers=kind).raise_for_status().json()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "crt").write_text(answer["certificate"])
    for name in ("ca", "key"):
        (tmp_path / "new" / name).write_bytes((tmp_path / "pi-1-0" / name).read_bytes())
    port = serving.running.broker.port
    assert not is_refused(tmp_path / "new", "pi-1", port) and not is_refused(tmp_path / "pi-1-0", "pi-1", port)
    assert status(http, "/devices/pi-1/revoke")["silenced"]
    assert is_refused(tmp_path / "new", "pi-1", port) and is_refused(tmp_path / "pi-1-0", "pi-1", port)


def test_a_decommissioned_device_and_a_clone_are_out_too(
    serving: Serving, http: httpx.Client, live: Callable[[str], Live], tmp_path: Path, kind: str
) -> None:
    """Decommissioned: shown like a revocation. In quarantine: the session ends by itself, and once released it is heard again."""
    ended, cloned = live("pi-1"), live("pi-2")
    assert status(http, "/devices/pi-1/decommission")["silenced"]
    with serving.running.hub.store.write() as tx:
        rows.change(tx, devices, {"id": "pi-2"}, status="clone")
    assert ended.gone.get(timeout=MOST_S) and cloned.gone.get(timeout=MOST_S)
    status(http, "/devices/pi-2/release")
    serving.running.silencer.look()
    heard = None
    for _ in range(3):  # a tick that was under way may still cut off the first connection
        back = Live(cloned.device, tmp_path / "pi-2-1", serving.running.broker.port)
        serving.running.link.publish(topics.down("pi-2", "cmd"), b"hello", 1, False)
        with contextlib.suppress(queue.Empty):
            heard = heard or back.next()
        back.close()
        if heard:
            break
    assert heard == (topics.down("pi-2", "cmd"), b"hello")


def test_a_killed_manager_finishes_at_its_next_start(made: Setup, tmp_path: Path) -> None:
    """Killed after the database was written and before the list: at the next start the device stays out, and that is shown."""
    serving = Serving(made.folder)
    client = http_to(made, serving)
    device = enrol(client, tmp_path / "dev", "pi-1")
    stays = enrol(client, tmp_path / "stays", "pi-2")
    serving.stop()
    hub = open_hub(made.folder, lambda: int(time.time()))
    before = hub.layout.crl.read_bytes()
    enrolment.revoke(hub, "me", "pi-1")
    hub.layout.crl.write_bytes(before)
    hub.close()
    serving = Serving(made.folder)
    try:
        port = serving.running.broker.port
        assert is_refused(tmp_path / "dev", device.id, port) and not is_refused(tmp_path / "stays", stays.id, port)
        client = http_to(made, serving)
        deadline = time.monotonic() + PATIENCE_S
        while "device-silenced" not in str(client.get("/audit").json()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        serving.stop()


def test_an_expired_list_is_renewed_before_anybody_connects(made: Setup, tmp_path: Path) -> None:
    """A manager that slept for two years lets its devices in; a broker with an expired list would refuse all."""
    hub = open_hub(made.folder, lambda: int(time.time()))
    expired = pki.make_crl(hub.ca, (), int(time.time()) - 2 * pki.CRL_DAYS * 86_400)
    assert x509.load_pem_x509_crl(expired).next_update_utc.timestamp() < time.time()
    hub.layout.crl.write_bytes(expired)
    hub.close()
    serving = Serving(made.folder)
    try:
        enrol(http_to(made, serving), tmp_path / "dev", "pi-1")
        assert not is_refused(tmp_path / "dev", "pi-1", serving.running.broker.port)
    finally:
        serving.stop()


def test_enrolled_before_a_restart_revoked_after_it(made: Setup, tmp_path: Path) -> None:
    """What is revoked is what the database says, not what this process has issued."""
    serving = Serving(made.folder)
    device = enrol(http_to(made, serving), tmp_path / "dev", "pi-1")
    serving.stop()
    serving = Serving(made.folder)
    try:
        live = Live(device, tmp_path / "dev", serving.running.broker.port)
        assert status(http_to(made, serving), "/devices/pi-1/revoke")["silenced"]
        assert live.gone.get(timeout=MOST_S) and is_refused(tmp_path / "dev", "pi-1", serving.running.broker.port)
    finally:
        serving.stop()


def http_to(made: Setup, serving: Serving) -> httpx.Client:
    """An admin's client."""
    context = ssl.create_default_context(cafile=made.ca)
    headers = {"authorization": f"Bearer {made.admin_token}"}
    return httpx.Client(base_url=serving.url + "/api/v1", verify=context, headers=headers, trust_env=False)
