"""A real manager with a clock that is told the time, a real broker, and a real agent that stands in 1970."""

import contextlib
import dataclasses
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edgeops.api.serve import Serving
from edgeops.manager import desire, documents, pki, register, timekeeper
from edgeops.manager.hub import Hub
from edgeops.manager.layout import Layout
from edgeops.manager.register import Wanted
from edgeops.manager.settings import Settings, dump, load
from edgeops.manager.setup import initialise, load_signer
from edgeops.manager.site import endpoints, read_site
from edgeops.store import rows
from edgeops.store.tables import devices
from edgeops.wire.envelope import seal
from edgeops_agent.core.record import Record
from edgeops_agent.shell import link, upkeep
from edgeops_agent.shell.credentials import Pair, keep_pair, read_pair
from edgeops_agent.shell.enrolment import enroll
from edgeops_agent.shell.identity import Paths
from edgeops_agent.shell.ports import Ports
from edgeops_agent.shell.supervisor import Options, Supervisor

from .site import free_port, until

Y2038 = 2_147_483_000
YEAR = 365 * 86_400


@dataclass
class Place:
    """A manager that believes it is `shift` seconds later than it is."""

    root: Path
    shift: int = 0
    serving: Serving | None = None

    def now(self) -> int:
        """Its clock."""
        return int(time.time()) + self.shift

    def up(self) -> None:
        """Start it."""
        self.serving = Serving(self.root, self.now)

    def down(self) -> None:
        """Stop it."""
        if self.serving:
            self.serving.stop()
            self.serving = None

    @property
    def hub(self) -> Hub:
        """What it holds."""
        assert self.serving is not None
        return self.serving.running.hub

    def accept(self) -> None:
        """`edgeops time accept`."""
        with self.hub.store.write() as tx:
            timekeeper.accept(tx, self.hub.root, self.now())

    def order(self, device: str) -> int:
        """Order `device` to hold nothing; the number of the order."""
        with self.hub.store.write() as tx:
            desire.set_wish(tx, device, "main", {"action": "none", "rollout": f"r{secrets.token_hex(4)}"})
            desire.push(self.hub, tx, device)
        with self.hub.store.read() as tx:
            row = rows.get(tx, devices, id=device)
        assert row is not None
        return int(row["counter"])

    def raise_epoch(self) -> None:
        """Sign and publish root n+1 with a raised epoch."""
        root = self.hub.root
        raised = dataclasses.replace(root, version=root.version + 1, epoch=root.epoch + 1, issued=self.now())
        sealed = seal("root", raised.payload(), [load_signer(Layout(self.root).key("root"))])
        documents.publish(self.hub, "me", "root", sealed)

    def announce(self, **ports: int) -> None:
        """Publish a site document with the endpoints of the next start."""
        layout = Layout(self.root)
        settings = dataclasses.replace(load(layout.settings), **ports)
        layout.settings.write_text(dump(settings))
        before, (mqtt, https) = read_site(self.hub.site_document), endpoints(settings)
        site = dataclasses.replace(before, version=before.version + 1, issued=self.now(), mqtt=mqtt, https=https)
        documents.publish(self.hub, "me", "site", seal("site", site.payload(), [load_signer(layout.key("site"))]))

    def again(self) -> None:
        """Restart it."""
        self.down()
        self.up()


@dataclass
class Pi:
    """A device whose own clock always shows `wall`."""

    place: Place
    state: Path
    wall: float = 60.0
    agent: Supervisor | None = None
    threads: list[threading.Thread] = field(default_factory=list)

    def enroll(self) -> None:
        """Join."""
        made = register.register(self.place.hub, "me", self.state.name, Wanted({}))
        enroll(made["token"], self.state)

    def start(self) -> None:
        """Run the agent."""
        self.agent = Supervisor(Options(self.state), Ports(wall=lambda: self.wall))
        self.threads.append(threading.Thread(target=self.agent.run, daemon=True))
        self.threads[-1].start()

    def stop(self) -> None:
        """End it as SIGTERM does."""
        if self.agent:
            self.agent.stop()
            self.threads[-1].join(30)
            self.agent = None

    @property
    def record(self) -> Record:
        """What it holds."""
        assert self.agent is not None
        return self.agent.record

    def takes_orders(self) -> None:
        """It takes the next order."""
        number = self.place.order(self.state.name)
        until(lambda: self.record.trust.counter >= number, f"{self.state.name} to take order {number}")

    def knows_time(self) -> None:
        """It has been told the time in this boot."""
        assert self.agent is not None
        until(lambda: self.agent and self.agent.clock.sure, "a signed time")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A manager that is up."""
    settings = Settings(https_port=free_port(), mqtt_port=free_port(), tick_ms=100)
    made = Place(initialise(tmp_path / "m", "berlin", ("127.0.0.1",), int(time.time()), settings).folder)
    made.up()
    yield made
    made.down()


@pytest.fixture
def pi(place: Place, tmp_path: Path) -> Iterator[Pi]:
    """A device that is enrolled and runs."""
    made = Pi(place, tmp_path / "pi-1970")
    made.enroll()
    made.start()
    yield made
    with contextlib.suppress(RuntimeError):
        made.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for minutes here."""
    monkeypatch.setattr(link, "CAP_S", 1.0)
    monkeypatch.setattr(upkeep, "FIRST_S", 0.5)
    monkeypatch.setattr(upkeep, "MOST_S", 2.0)


def test_a_device_in_1970_enrols_connects_and_takes_orders(pi: Pi) -> None:
    """Its wall clock stands at one minute past the epoch for ever; what it believes is what the manager has signed."""
    pi.knows_time()
    pi.takes_orders()
    assert pi.agent and abs(pi.agent.clock.now() - time.time()) < 60
    assert pi.record.trust.time_floor > time.time() - 600


def test_a_manager_that_signed_2038_locks_nobody_out(pi: Pi, place: Place) -> None:
    """Everything looks expired to the device, over a restart too, until a root with a raised epoch is published."""
    pi.knows_time()
    pi.stop()
    place.shift = Y2038 - int(time.time())
    place.accept()
    pi.start()
    pi.knows_time()
    assert pi.record.trust.time_floor >= Y2038
    place.shift = 0
    pi.stop()
    pi.start()
    agent = pi.agent
    assert agent is not None
    until(lambda: agent.link.expired, "the broker's certificate to look expired")
    assert not agent.link.connected
    place.raise_epoch()
    pi.takes_orders()
    assert pi.record.trust.time_floor < Y2038 and agent.clock.least() < Y2038
    pi.knows_time()


def test_a_device_asleep_for_a_year_comes_back_by_itself(pi: Pi, place: Place) -> None:
    """Its certificate has ended; nobody lets it in; it renews over HTTPS with its identity key, and takes orders."""
    pi.knows_time()
    pi.stop()
    paths = Paths(pi.state)
    _age(place, pi)
    old = read_pair(paths)
    assert old is not None and old.certificate.not_valid_after_utc.timestamp() < time.time() - YEAR / 2
    pi.start()
    pi.takes_orders()
    new = read_pair(paths)
    assert new is not None and new.key.private_numbers() != old.key.private_numbers()


def test_a_device_without_a_usable_pair_asks_for_a_new_one(pi: Pi) -> None:
    """A damaged or lost key file does not need a visit either."""
    for content in (b"rubbish", None):
        pi.stop()
        path = Paths(pi.state).pair
        path.unlink() if content is None else path.write_bytes(content)
        pi.start()
        pi.takes_orders()


def test_a_very_late_device_waits_for_an_operator(pi: Pi, place: Place) -> None:
    """Where late renewals need approval the device asks until it is given, and then comes back by itself."""
    pi.knows_time()
    pi.stop()
    _age(place, pi)
    with place.hub.store.write() as tx:
        rows.change(tx, devices, {"id": pi.state.name}, certificate_expires=int(time.time()) - YEAR)
    pi.start()
    until(lambda: register.pending(place.hub), "the device to wait for approval")
    assert pi.agent and not pi.agent.link.connected
    register.decide(place.hub, "me", "granted", {one["id"]: one["fingerprint"] for one in register.pending(place.hub)})
    pi.takes_orders()


def test_a_fleet_is_moved_while_it_listens(pi: Pi, place: Place) -> None:
    """New endpoints nobody answers at yet: the device keeps to the old ones; once they answer it uses them and forgets the old."""
    pi.knows_time()
    to = free_port()
    place.announce(mqtt_port=to)
    until(lambda: len(pi.record.sites) == 2, "the new site document")
    pi.takes_orders()
    place.again()
    pi.takes_orders()
    until(lambda: len(pi.record.sites) == 1, "the old endpoints to be forgotten")
    assert pi.agent and pi.agent.link.way and pi.agent.link.way.url.endswith(f":{to}")


def test_a_fleet_is_moved_while_the_device_sleeps(pi: Pi, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker is elsewhere when it wakes up: it finds the new site document over HTTPS, and follows."""
    monkeypatch.setattr(upkeep, "APART_S", 1.0)
    pi.knows_time()
    pi.stop()
    to = free_port()
    place.announce(mqtt_port=to)
    place.again()
    pi.start()
    pi.takes_orders()


def _age(place: Place, pi: Pi) -> None:
    """Give the device a certificate as it would have been issued a year ago."""
    key = ec.generate_private_key(ec.SECP256R1())
    then = int(time.time()) - YEAR
    certificate = pki.certify(place.hub.issuer, pi.state.name, key.public_key(), then, 30)
    keep_pair(Paths(pi.state), Pair(key, certificate))
