"""A device's updates, played by the real supervisor: its disk, its link and its hands are given, and nothing here waits.

Told in one process from the first order to the last: install, update, a trial that fails, a restart, the next update. `python -m
tests.crash.story FOLDER` plays it on a real disk, for who wants to kill it: it goes on where the process before was killed.
"""

import hashlib
import json
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeops.wire.conditions import Fact
from edgeops.wire.errors import EdgeopsError, Unfit, Unreachable
from edgeops.wire.keys import private_pem
from edgeops.wire.trust import Capabilities
from edgeops_agent.core.record import Record
from edgeops_agent.core.slot import Build, Command, Done, Failed, Install, Lost, Run, Try, Verify
from edgeops_agent.shell import builds, journal
from edgeops_agent.shell.disk import StateFolder, refusals
from edgeops_agent.shell.files import DISK, PRIVATE, Files
from edgeops_agent.shell.identity import Paths
from edgeops_agent.shell.inbox import Inbox, Message
from edgeops_agent.shell.news import Ailing, Collected, Ran
from edgeops_agent.shell.ports import Ports
from edgeops_agent.shell.supervisor import Options, Supervisor

from .desk import BAD, NOW, Desk, Violation, down, first_trust, model, papers

STORY = (1, 2, BAD, 4)
KILLED_IN, RESTART_BEFORE = 2, 4
LIMIT = 3000


def furnish(files: Files, root: Path) -> None:
    """An enrolled device that has heard of no order yet, as enrolment leaves it."""
    folder, paths = StateFolder(root, files), Paths(root, files)
    site, key, certificate = papers()
    folder.create()
    folder.claim()
    folder.prepare()
    identity = private_pem(Ed25519PrivateKey.from_private_bytes(b"i" * 32))
    kept = ((paths.identity, identity), (paths.tls_key, key), (paths.certificate, certificate), (paths.site, site))
    for path, data in kept:
        folder.put_whole(path, data, PRIVATE)
    folder.keep(Record(first_trust()))
    folder.save(Record(first_trust()))
    folder.release()


class Link:
    """The link's place: what is said is heard by the desk at once, what the desk says waits until `deliver`."""

    refused, expired, way = 0, False, None

    def __init__(self, desk: Desk, inbox: Inbox, offline: bool) -> None:
        self._desk, self._inbox, self._offline = desk, inbox, offline
        self.connected = False
        self.waiting: deque[Message] = deque()

    def start(self) -> None:
        """Connect, unless nobody can be reached."""
        if not self._offline:
            self.connected = True
            self._inbox.put("connected")

    def join(self) -> None:
        """Somebody can be reached from now on."""
        self._offline = False
        self.start()

    def publish(self, topic: str, payload: bytes, qos: int = 1) -> bool:
        """The desk hears it."""
        if self.connected:
            self.waiting.extend(Message(down(noun), data) for noun, data in self._desk.hear(topic, payload))
        return self.connected

    def order(self, version: int) -> None:
        """The desk gives the next order."""
        noun, data = self._desk.order(version)
        self.waiting.append(Message(down(noun), data))

    def deliver(self) -> bool:
        """One message arrives; False when none is under way."""
        if self.connected and self.waiting:
            self._inbox.offer(self.waiting.popleft())
            return True
        return False

    def change(self, settings: object) -> None:
        """Nothing to change."""

    subscribe = unsubscribe = change

    def stop(self, farewell: object = None) -> None:
        """Gone."""
        self.connected = False


class Hands:
    """The runner's place: it checks as the real one does, "runs" only what was checked, and looks once more for itself."""

    def __init__(self, desk: Desk, name: str, folder: StateFolder, post: Callable[[Any], None], now: Callable[[], float]) -> None:
        self._desk, self._name, self._folder, self._post, self._now = desk, name, folder, post, now
        self._jobs: deque[Command] = deque()
        self.running = 0

    def start(self) -> None:
        """Nothing to begin."""

    stop = start

    def do(self, command: Command) -> None:
        """Queue a command."""
        self._jobs.append(command)

    def work(self) -> bool:
        """Carry out one command; False when there is none."""
        if not self._jobs:
            return False
        match self._jobs.popleft():
            case Verify(target) if target.build:
                build = target.build
                self._attempt("verify", target.order, lambda: builds.check(self._folder, build))
            case Install(target) if target.build:
                self._attempt("install", target.order, self._install)
            case Try(target) if target.build:
                self._try(target.build, target.order)
            case Run(build):
                self._run(build)
        return True

    def _attempt(self, phase: str, order: int, work: Callable[[], None]) -> None:
        try:
            work()
            self._post(Done(phase, order, int(self._now())))
        except EdgeopsError as error:
            self._post(Failed(phase, order, int(self._now()), error.reason, error.message))

    def _install(self) -> None:
        with refusals("the objects"):
            self._folder.files.sync(self._folder.objects)

    def _try(self, build: Build, order: int) -> None:
        self.running = self._seen(build)
        if build.version == BAD:
            self._post(Failed("trial", order, int(self._now()), "crashed", "the worker died while taking calls"))
            return
        self._desk.passed.append(build.version)
        self._post(Collected(build, b"a window", 1, 0))
        self._post(Done("trial", order, int(self._now())))

    def _run(self, build: Build | None) -> None:
        if build is not None and self.running != build.version:
            try:
                self._check_patiently(build)
            except EdgeopsError as error:
                self.running = 0
                now = int(self._now())
                self._post(Ailing(build, error.reason) if error.reason == "disk" else Lost(build.release, now, error.reason))
                return
        self.running = 0 if build is None else self._seen(build)
        self._post(Ran(build))

    def _check_patiently(self, build: Build) -> None:
        for again in (True, True, True, False):
            try:
                return builds.check(self._folder, build)
            except Unfit:
                if not again:
                    raise
        return None

    def _seen(self, build: Build) -> int:
        """The version, whose bytes are on the disk as they were signed; raises Violation."""
        made = model(build.version)
        for name, data in made.objects.items():
            try:
                there = self._folder.files.read(self._folder.objects / name)
            except OSError:
                continue  # a worker that cannot read it does not start
            if there != data:
                raise Violation(f"version {build.version} runs with bytes that nobody has signed")
        return build.version


@dataclass
class Device:
    """One start of the agent on a disk."""

    files: Files
    root: Path
    desk: Desk
    offline: bool = False
    at: float = 1000.0
    hands: dict[str, Hands] = field(default_factory=dict)
    watch: Callable[[], None] = lambda: None
    facts: dict[str, Fact] = field(default_factory=dict)
    wall: Callable[["Device"], float] = lambda device: NOW + device.at

    def __post_init__(self) -> None:
        self.desk.boots += 1
        self._drawn = 0
        ports = Ports(
            files=self.files, monotonic=lambda: self.at, wall=lambda: self.wall(self), draw=self._draw, aside=_nothing,
            capabilities=lambda: Capabilities("x86-vnni", (1, 32)), link=self._make_link, runner=self._make_hands,
            listen=lambda *_: SimpleNamespace(sockets=(), port=0, close=lambda: None), fetch=_nobody,
            senses=lambda *_: _Senses(self.facts),
        )  # fmt: skip
        self.agent = Supervisor(Options(self.root), ports)
        self.agent.begin()

    def _draw(self, size: int) -> bytes:
        self._drawn += 1
        return hashlib.shake_128(f"{self.desk.boots}/{self._drawn}".encode()).digest(size)

    def _make_link(self, _settings: object, inbox: Inbox, *_rest: object) -> Link:
        self.link = Link(self.desk, inbox, self.offline)
        return self.link

    def _make_hands(self, name: str, folder: StateFolder, *rest: Any) -> Hands:
        post = next(one for one in rest if callable(one))
        self.hands[name] = Hands(self.desk, name, folder, post, lambda: self.at)
        return self.hands[name]

    @property
    def running(self) -> int:
        """The version that takes the calls, 0 for none."""
        return self.hands["main"].running

    def settle(self) -> None:
        """Let everything happen until nothing is under way and nothing is unsaid; raises Violation when that never comes."""
        for _ in range(LIMIT):
            if self._step():
                continue
            if self.at_rest():
                return
            self.at += 1.0
        raise Violation(f"does not come to rest: {self.agent.record.slots}, counters {dict(self.agent.record.counters)}")

    def last(self, seconds: float) -> None:
        """Let so much time pass, with all that happens in it."""
        until = self.at + seconds
        self.go(lambda: self.at >= until)

    def go(self, done: Callable[[], bool]) -> None:
        """Let everything happen until `done`."""
        while not done():
            if not self._step():
                self.at += 1.0

    def _step(self) -> bool:
        """One thing happens; False when nothing does."""
        self.watch()
        happened = self.agent.turn() or any(hands.work() for hands in self.hands.values()) or self.link.deliver()
        errors = self.agent.record.counters.get("internal_errors", 0)
        if self.desk.wrong or errors:
            raise Violation(self.desk.wrong or f"{errors} errors that nobody thought of")
        return happened

    def at_rest(self) -> bool:
        """Whether the newest order has ended and the desk knows it; without a link, whether nothing is tried any more."""
        slots = self.agent.record.slots
        if self.offline:
            return all(slot.phase in ("idle", "fetch", "waiting") for slot in slots.values())
        newest = len(self.desk.orders)
        quiet = all(slot.phase == "idle" and not slot.outbox for slot in slots.values())
        return quiet and (not newest or (newest in self.desk.stored and self.agent.record.trust.counter >= newest))

    def update(self, version: int) -> None:
        """The desk orders a version, and all that follows happens."""
        self.link.order(version)
        self.settle()

    def close(self) -> None:
        """The agent is stopped as a service is."""
        self.agent.close()


class _Senses:
    """The facts that were given, and no thread that looks for others."""

    def __init__(self, facts: dict[str, Fact]) -> None:
        self._facts = facts

    def start(self) -> None:
        pass

    stop = start

    def latest(self) -> dict[str, Fact]:
        return dict(self._facts)

    def eager(self, waiting: bool) -> None:
        pass


class _Never:
    def is_alive(self) -> bool:
        return False


def _nothing(_name: str, _work: object) -> _Never:
    """Errands are another test's (lives.py)."""
    return _Never()


def _nobody(*_: object) -> tuple[int, bytes]:
    raise Unreachable("manager-unreachable", "nobody here")


def mute() -> None:
    """Say nothing on standard output."""
    journal.begin(journal.Journal(lambda line: True))


def tell(
    files: Files, root: Path, desk: Desk, rest: Callable[[], None] = lambda: None, watch: Callable[[Device], None] = lambda _: None
) -> Device:
    """The whole story, or the rest of it when the desk has heard the beginning. `rest` is called where nothing happens for long."""

    def start() -> Device:
        made = Device(files, root, desk)
        made.watch = lambda: watch(made)
        made.settle()
        return made

    def fetching() -> bool:
        """Whether the newest order was told to be taken, and is being fetched."""
        return device.agent.record.slots["main"].phase == "fetch" and desk.told["counter"] == len(desk.orders)

    device = start()
    for version in STORY[len(desk.orders) :]:
        rest()
        if version == RESTART_BEFORE:
            device.close()
            device = start()
        device.link.order(version)
        if version == KILLED_IN:
            device.go(fetching)
            device.agent.folder.release()
            device = start()
        device.settle()
    return device


def main(folder: Path) -> int:
    """Play on a real disk. What the desk knows is a line of JSON on standard input, and on standard output whenever it changes."""
    mute()
    known = json.loads(sys.stdin.readline() or "{}")
    known["stored"] = {int(order): verdict for order, verdict in known.get("stored", {}).items()}
    desk, said = Desk(**known), [""]
    if not (folder / "record.kept").exists():
        furnish(DISK, folder)

    def watch(_: Device) -> None:
        line = json.dumps(asdict(desk))
        if line != said[0]:
            said[0] = line
            print(line, flush=True)

    device = tell(DISK, folder, desk, watch=watch)
    watch(device)
    device.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
