"""Manager and straws in one world: the real manager over SQLite, the real straws over air, time that jumps, weather from a seed.

Messages are lost, doubled, late and spoiled; links are cut, of one device or of half the fleet at once; devices lose power, their
last wills come too late; the manager starts anew; an intruder on the broker replays old orders, forges new ones and sends wrong
frames. After everything a straw does the world looks whether it may.
"""

import copy
import itertools
import random
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine, event

from edgeops.manager import reconcile, setup
from edgeops.manager.hub import Hub, open_hub
from edgeops.store import outbox
from edgeops.wire import canonical, envelope, topics
from edgeops.wire.errors import EdgeopsError
from edgeops.wire.keys import Signer
from edgeops.wire.messages import Bundle, Presence, State, Want, open_report
from edgeops.wire.trust import Capabilities, current_root
from edgeops_agent.core.health import Verdict
from edgeops_agent.core.record import Record
from edgeops_agent.core.slot import Target
from edgeops_agent.shell import builds
from edgeops_agent.sim import kept, memory, ports, presence, straw

from ..manager.house import NOW, Clock, FakeDevice, Fleet, new_manager

LOOK_S, PULSE_S, TICK_S = 1.0, 1.0, 2.0
SHELF = 64 << 20
ENGINES: dict[str, Engine] = {}
THIEF = Signer.from_seed(b"t" * 32)


class Violation(AssertionError):
    """Something a straw must never do."""


@contextmanager
def lawful(text: str) -> Iterator[None]:
    """What raises one of our errors in here must not happen."""
    try:
        yield
    except EdgeopsError as error:
        raise Violation(f"{text}: {error}") from error


@dataclass
class Founded:
    """A manager's folder and what its straws keep: the place every world of a seed begins at."""

    folder: Path
    devices: dict[str, FakeDevice]
    kept: dict[str, memory.MemoryFolder]
    bodies: dict[str, bytes] = field(default_factory=dict)
    old_orders: list[tuple[str, bytes]] = field(default_factory=list)
    releases: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Weather:
    """How bad it gets: shares of messages lost, doubled and spoiled, the longest delay, cuts per straw, how often half the fleet
    is cut off, starts of the manager, intruder's deeds."""

    lost: float = 0.0
    doubled: float = 0.0
    late_s: float = 0.05
    spoiled: float = 0.0
    cuts: int = 0
    partitions: int = 0
    restarts: int = 0
    deeds: int = 0


CALM = Weather()
STORM = Weather(lost=0.1, doubled=0.15, late_s=3.0, spoiled=0.05, cuts=2, partitions=1, restarts=1, deeds=25)
# A broker that lives keeps QoS 1 for a link that lives; orders and births are lost only with their link, see `_cut`.
SAFE = ("/presence", "/desired", "/doc")


def quick(hub: Hub) -> Hub:
    """No pacing, and a database that may forget when the machine dies: what is tested here is not the disk."""
    object.__setattr__(hub.settings, "frames_per_s", 1_000_000)
    engine = hub.store.engine
    event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=OFF").close())
    engine.dispose()
    # Every world says the same to its database: what SQLAlchemy has once put into words serves them all.
    first = ENGINES.setdefault(engine.name, engine)
    engine.dialect, engine._compiled_cache = first.dialect, first._compiled_cache
    return hub


def found(folder: Path, size: int) -> Founded:
    """A manager with `size` enrolled straws that have never connected."""
    keys = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in itertools.count(1))
    with patch.object(setup, "Ed25519PrivateKey", SimpleNamespace(generate=lambda: next(keys))):
        new_manager(folder)  # a seed is to replay in any process
    hub = quick(open_hub(folder, Clock(NOW - 100)))
    devices = Fleet(hub, Clock(NOW - 100), [f"straw-{number:02d}" for number in range(size)]).devices
    folders = {}
    for name, device in devices.items():
        assert device.trust
        folders[name] = memory.MemoryFolder()
        folders[name].save(Record(device.trust))
    hub.close()
    return Founded(folder, devices, folders)


def settle(start: Founded) -> Founded:
    """The same a moment later: everybody runs release 1, release 2 is there, and what was ordered so far can be replayed."""
    folder = start.folder.with_name("settled")
    world = World(start, folder, 0, CALM)
    world.begin()
    world.air.run(3.0)
    world.publish(1)
    rollout = world.start(1)
    world.until(lambda: world.status(rollout) == "finished", 60)
    world.air.run(world.clock.at + 5)
    world.publish(2)
    world.close()
    bodies = {digest: body for digest in world.shelf for body in [world.shelf.read(digest)] if body is not None}
    return Founded(folder, start.devices, world.folders, bodies, world.orders, world.releases)


class World:
    """One seed's world; `shelf` is how many bytes all straws may hold."""

    def __init__(self, start: Founded, folder: Path, seed: int, weather: Weather, shelf: int = SHELF) -> None:
        shutil.copytree(start.folder, folder)
        self.random, self.weather = random.Random(seed), weather
        self.clock = memory.FakeClock(NOW)
        self.hub = quick(open_hub(folder, lambda: int(self.clock.wall())))
        self.fleet = Fleet(self.hub, Clock(NOW), [])
        self.fleet.devices = start.devices
        self.air = memory.Air(self.clock, self._fate, self._up)
        self.shelf = kept.Shelf(shelf, dict(start.bodies))
        self.folders = {name: copy.deepcopy(own) for name, own in start.kept.items()}
        self.kept = {name: self._cupboard(name) for name in self.folders}
        self.verdicts: Callable[[str, Target, float], Verdict] = lambda name, target, elapsed: ports.untouched(target, elapsed)
        self.ordered: dict[str, dict[tuple[int, int], set[str]]] = defaultdict(dict)
        self.orders: list[tuple[str, bytes]] = list(start.old_orders)
        self.refused: list[str] = []
        self.counts, self.excused = Counter[str](), Counter[str]()
        self.called = False
        self.high: dict[str, tuple[int, ...]] = {}
        self.stored: dict[str, Record] = {}
        self.releases = dict(start.releases)
        self.seen: dict[str, set[bytes]] = defaultdict(set)
        for topic, payload in start.old_orders:
            self._note(topic, payload)
        self.straws = {name: self._start(name) for name in start.devices}

    def _cupboard(self, name: str) -> kept.Cupboard:
        """Where a straw stores things; what it stored last is noted for the laws."""
        cupboard = kept.Cupboard(self.folders[name], self.shelf)
        save = cupboard.save

        def noted(record: Record) -> None:
            save(record)
            self.stored[name] = record

        cupboard.save = noted  # type: ignore[method-assign]
        return cupboard

    def _start(self, name: str) -> Any:
        link = self.air.link(name)
        given = ports.Ports(
            link, self.kept[name], self.clock.wall, self.clock.monotonic, self.random.randbytes,
            lambda target, elapsed: self.verdicts(name, target, elapsed), say=self.refused.append,
        )  # fmt: skip
        device = Capabilities("x86-vnni", (1, 32))
        made = straw.Straw(given, self.fleet.devices[name].identity, device, self.random.randbytes(16).hex())
        self.stored[name] = made.record
        link.take = lambda topic, data: self._watched(made, lambda: self._spoil(made.take, topic, data))
        self._watched(made, made.boot)
        return made

    # -- weather

    def _fate(self, topic: str) -> tuple[float, ...]:
        weather, dice = self.weather, self.random
        if not topic.endswith(SAFE) and dice.random() < weather.lost:
            return ()
        copies = 2 if dice.random() < weather.doubled else 1
        return tuple(dice.uniform(0.0, weather.late_s) for _ in range(copies))

    def _spoil(self, take: Callable[[str, bytes], object], topic: str, payload: bytes) -> None:
        """Hand a message over, perhaps with one bit changed; what a broker must not lose comes as it was sent after that."""
        if payload and self.random.random() < self.weather.spoiled:
            # Some documents differ by a byte in length from process to process: no draw may hang on it.
            at, bit = int(self.random.random() * len(payload)), 1 << self.random.randrange(8)
            take(topic, payload[:at] + bytes([payload[at] ^ bit]) + payload[at + 1 :])
            if not topic.endswith(SAFE):
                return
        take(topic, payload)

    def _cut(self, name: str, power: bool | None = None) -> None:
        """The link breaks or the power goes; the last will comes when it likes, the device comes back after a while."""
        if not self.air.link(name).connected:
            return
        self.air.cut(name)
        made = self.straws[name]
        will = presence.leave(made.record.trust, self.fleet.devices[name].identity, made.boot_id, "gone")
        self.air.after(self.random.uniform(0, 5), lambda: self.fleet.up(name, "presence", will))
        if self.random.random() < 0.5 if power is None else power:
            self.air.link(name).filters.clear()
            self.straws[name] = self._start(name)
        self.air.after(self.random.uniform(0.1, 8), lambda: self._join(name))

    def _part(self) -> None:
        """A network between half of the straws and the manager breaks: all at once, and nobody loses power."""
        for name in self.random.sample(sorted(self.straws), (len(self.straws) + 1) // 2):
            self._cut(name, power=False)

    def _restart(self) -> None:
        """The manager is killed and starts anew: what it had only in its memory is gone."""
        self.counts.update(self.fleet.ingest.counts)
        self.fleet.reopen()

    def _join(self, name: str) -> None:
        self.air.join(name)
        self._watched(self.straws[name], self.straws[name].connected)

    def _deed(self) -> None:
        """The intruder has a credential of the broker and none of the keys."""
        name = self.random.choice(sorted(self.straws))
        match self.random.randrange(4):
            case 0 if self.orders:
                topic, payload = self.random.choice(self.orders)
                self.air.down(topic, payload)
            case 1 if self.orders:
                topic, payload = self.random.choice(self.orders)
                self.air.down(topics.down(name, "desired"), payload)
            case 2:
                self.air.down(topics.down(name, "desired"), self._forged(name))
            case 3:
                for digest in self.streams():
                    self.air.down(topics.frame("all", digest, 0), self.random.randbytes(1000))
                    block = bytes.fromhex(digest) + (1).to_bytes(4) + self.random.randbytes(60 << 10)
                    self.air.down(topics.down(name, "blk"), block)

    def _forged(self, name: str) -> bytes:
        """The newest order of this device with a much higher counter, signed with the thief's own key."""
        mine = [payload for topic, payload in self.orders if topic == topics.down(name, "desired")]
        documents = []
        for kind, data in Bundle.decode(mine[-1]).documents if mine else ():
            if kind == "desired":
                body = canonical.decode(envelope.split(data, kind)[0])
                data = envelope.seal(kind, body | {"counter": 1000}, [THIEF])
            documents.append((kind, data))
        return Bundle(tuple(documents)).encode()

    def streams(self) -> list[str]:
        """Digests of all streams the manager has cut."""
        with self.hub.store.read() as tx:
            return sorted(row[0] for row in tx.exec_driver_sql("select digest from streams"))

    # -- the manager's side

    def _up(self, topic: str, payload: bytes) -> None:
        self._spoil(lambda topic, data: self._receive(topic, data, data != payload), topic, payload)

    def _receive(self, topic: str, payload: bytes, is_spoiled: bool) -> None:
        """A message for the manager; a report that was spoiled must be refused, and is not held against who sent it."""
        before = Counter(self.fleet.ingest.counts)
        self.fleet.ingest.take(topic, payload)
        if is_spoiled:
            new = Counter(self.fleet.ingest.counts) - before
            self.excused += new
            if topic.endswith(("/presence", "/state")) and not any(name.startswith("refused.") for name in new):
                raise Violation(f"the manager believes a spoiled message on {topic}")

    def _pulse(self) -> None:
        """What the manager's loops do all the time."""
        with self.hub.store.read() as tx:
            some = outbox.waiting(tx, 1)
        for letter in self.fleet.letters() if some else ():
            self._note(letter.topic, letter.payload)
            self.air.down(letter.topic, letter.payload)
        for digest in list(self.fleet.delivery._waiting):
            self.fleet.delivery._round(digest)
        frames, self.fleet.frames[:] = list(self.fleet.frames), []
        for topic, payload, _ in frames:
            self.air.down(topic, payload)

    def _note(self, topic: str, payload: bytes) -> None:
        """Remember what the manager really ordered."""
        if not topic.endswith("/desired"):
            return
        self.orders.append((topic, payload))
        for kind, data in Bundle.decode(payload).documents:
            if kind == "desired":
                body = canonical.decode(envelope.split(data, kind)[0])
                releases = {wish["release"] for wish in body["slots"].values() if wish["action"] == "run"}
                self.ordered[body["device"]][body["epoch"], body["counter"]] = releases

    # -- the laws

    def _watched(self, made: Any, call: Callable[[], None]) -> None:
        call()
        name, trust = made.id, made.record.trust
        high = (trust.counter, trust.command, trust.time_floor, trust.site_version, made.record.report_seq)
        root = current_root(trust)
        high = (root.epoch, root.version, trust.floor_version, *high)
        before = self.high.get(name, high)
        anew = 0 if root.epoch == before[0] else 3  # a raised epoch begins to count orders and time anew
        if any(new < old for place, (new, old) in enumerate(zip(high, before, strict=True)) if not 3 <= place < 3 + anew):
            raise Violation(f"{name} went back from {before} to {high}")
        self.high[name] = high
        if made.record is not self.stored[name]:
            raise Violation(f"{name} acted on a record it had not stored")
        newest = (root.epoch, trust.counter)
        allowed = set().union(*(releases for order, releases in self.ordered[name].items() if order <= newest))
        for build in made.running.values():
            if build.release not in allowed:
                raise Violation(f"{name} runs {build.release[:12]}, which it was not ordered")

    def listen(self, link: memory.MemoryLink) -> None:
        """Verify everything a straw publishes, at the moment it does."""
        device, publish = self.fleet.devices[link.device], link.publish

        def publish_verified(topic: str, payload: bytes) -> bool:
            with lawful(f"what {device.id} sends does not verify"):
                self._verify(device, topic, payload)
            return publish(topic, payload)

        link.publish = publish_verified  # type: ignore[method-assign]

    def _verify(self, device: FakeDevice, topic: str, payload: bytes) -> None:
        parsed = topics.parse(topic)
        if not isinstance(parsed, topics.DeviceTopic) or (parsed.device, parsed.direction) != (device.id, "up"):
            raise Violation(f"{device.id} publishes on {topic}")
        match parsed.noun:
            case "presence":
                birth = Presence.parse(open_report(payload, "presence", device.identity.public))
                if birth.device != device.id or (birth.kind == "birth" and birth.facts.get("simulated") is not True):
                    raise Violation(f"{device.id} does not say that it is simulated")
            case "state":
                told = State.parse(open_report(payload, "state", device.identity.public))
                if not self.called and any(slot.verdict == "committed" for slot in told.slots.values()):
                    raise Violation(f"{device.id} says that its model is proven, but nobody called it")
                if told.device != device.id or payload in self.seen[device.id]:
                    raise Violation(f"{device.id} reported the same twice")
                self.seen[device.id].add(payload)
            case "want":
                Want.decode(payload)
            case noun:
                raise Violation(f"{device.id} sends {noun}")

    # -- the operator

    def publish(self, version: int) -> None:
        """A signed release of this version with its objects; its digest stands in `releases`."""
        self.releases[version] = self.fleet.publish(version)

    def start(self, version: int, **other: Any) -> str:
        """Roll it out to one straw, then to all; the id of the rollout."""
        return self.fleet.start(version, **{"waves": "1,100%", "trial": {"window_s": 4}} | other)

    def status(self, rollout: str) -> str:
        """How the rollout stands."""
        with self.hub.store.read() as tx:
            return str(tx.exec_driver_sql("select status from rollouts where id = ?", (rollout,)).scalar())

    # -- time

    def begin(self) -> None:
        """Everybody connects within a second, and time may pass."""
        for name in self.straws:
            self.listen(self.air.link(name))
            self.air.after(self.random.uniform(0, 1), lambda name=name: self._join(name))  # type: ignore[misc]
        self._every(LOOK_S, self._look)
        self._every(PULSE_S, self._pulse)
        self._every(TICK_S, lambda: reconcile.tick(self.hub))

    def trouble(self, within_s: float) -> None:
        """The cuts, restarts and deeds of this weather, some time within the next seconds."""
        for name in sorted(self.straws):
            for _ in range(self.random.randint(0, self.weather.cuts)):
                self.air.after(self.random.uniform(0, within_s), lambda name=name: self._cut(name))  # type: ignore[misc]
        weather = self.weather
        for deed, times in ((self._part, weather.partitions), (self._restart, weather.restarts), (self._deed, weather.deeds)):
            for _ in range(times):
                self.air.after(self.random.uniform(0, within_s), deed)

    def _every(self, seconds: float, call: Callable[[], None]) -> None:
        def again() -> None:
            call()
            self.air.after(seconds, again)

        self.air.after(seconds, again)

    def _look(self) -> None:
        for made in self.straws.values():
            self._watched(made, made.look)

    def until(self, done: Callable[[], bool], at_most_s: float, step_s: float = 1.0) -> bool:
        """Let time pass until `done`, asked every so often; whether it came true in time."""
        end = self.clock.at + at_most_s
        while not done():
            if self.clock.at >= end:
                return False
            self.air.run(self.clock.at + step_s)
        return True

    def whole(self, version: int) -> int:
        """How many straws have committed and run this version and hold every byte of it under its hash."""
        release, count = self.releases[version], 0
        for name, made in self.straws.items():
            build = made.running.get("main")
            if build is not None and build.release == release and made.record.slots["main"].current == build:
                with lawful(f"{name} runs what it does not hold"):
                    builds.check(self.kept[name], build)
                count += 1
        return count

    def close(self) -> None:
        """Close the database."""
        self.hub.close()

    def refusals(self) -> Iterator[str]:
        """Reasons for which the manager refused messages."""
        counts = self.counts + Counter(self.fleet.ingest.counts) - self.excused
        return (name.removeprefix("refused.") for name in counts if name.startswith("refused."))
