"""One straw device: the supervisor's work without workers. Everything it touches is a port; every decision is the core's.

It has no thread and no queue of its own: whoever drives it calls `boot`, `connected`, `take` for what comes in, and `look` now and
then. Each step is stored before it is acted on. It installs nothing and loads nothing: when the frames are put together and every
object has its hash, the trial begins, and `Ports.verdicts` says how it ends.
"""

import contextlib
import functools
from collections import deque
from dataclasses import replace

from edgeops.wire import envelope, topics
from edgeops.wire.conditions import ONLINE
from edgeops.wire.errors import EdgeopsError, Rejected
from edgeops.wire.keys import Signer
from edgeops.wire.messages import Bundle
from edgeops.wire.topics import FrameTopic
from edgeops.wire.trust import Capabilities, versions

from ..core.receive import Situation, obey, receive
from ..core.record import Record
from ..core.slot import (
    GATED,
    Build,
    Command,
    Discard,
    Done,
    Event,
    Failed,
    Fetch,
    Install,
    Lost,
    Report,
    Restarted,
    Run,
    Sense,
    Sensed,
    Slot,
    Target,
    Tick,
    Try,
    Verify,
)
from ..core.update import keep, step
from ..shell import builds, reporting
from ..shell.clock import Clock
from ..shell.downloads import Downloads
from .kept import ShelfFetch
from .ports import Ports
from .presence import birth, leave

REPORT_S = 30.0
BLOCK_HEADER = 36


class Straw:
    """One enrolled device. `running` is the build that takes the calls in each slot, as far as a straw runs anything."""

    def __init__(self, ports: Ports, signer: Signer, device: Capabilities, boot: str) -> None:
        self.ports, self.signer, self.device, self.boot_id = ports, signer, device, boot
        self.record: Record = ports.kept.load()
        self.clock = Clock(self.record.trust.time_floor, ports.wall, ports.monotonic)
        self.running: dict[str, Build] = {}
        self._trials: dict[str, tuple[Target, float]] = {}
        self._events: deque[tuple[str, Event]] = deque()
        self._downloads = Downloads(functools.partial(ShelfFetch, ports.kept), ports.transport, self._post, ports.monotonic)
        self._latest = ("", b"")
        self._report_due, self._reported = False, ports.monotonic()

    @property
    def id(self) -> str:
        """The device id."""
        return self.record.trust.device

    # -- what the driver calls

    def boot(self) -> None:
        """Begin: whatever an earlier run of this straw left is looked at, nothing of it is believed."""
        for slot in self.record.slots.values():
            for build in keep(slot):
                self.ports.kept.adopt(build)
        for name in sorted(self.record.slots.keys() | {"main"}):
            self._post(name, Restarted(self._now()))
        self.ports.transport.subscribe(topics.downs_of(self.id))
        self._pump()

    def connected(self) -> None:
        """The link is up: be born, ask again at once for what is missing."""
        self._store(replace(self.record, report_seq=self.record.report_seq + 1))
        nonce, seq = self.clock.ask(self.ports.draw(32).hex()), self.record.report_seq
        self._send("presence", birth(self.record.trust, self.signer, self.boot_id, self.device, nonce, seq))
        self._downloads.ask_soon()
        self._report_due = True
        self._pump()

    def take(self, topic: str, data: bytes) -> None:
        """A message came in; nothing that stands in it makes this raise."""
        try:
            self._take(topic, data)
        except EdgeopsError as error:
            self._refused("message", error)
        self._pump()

    def look(self) -> None:
        """Time has passed: deadlines, trials, wants, the report that is due now and then."""
        for name, slot in self.record.slots.items():
            if slot.phase != "idle" and self._now() >= slot.deadline:
                self._post(name, Tick(self._now()))
            if slot.phase in GATED:
                self._post(name, self._sensed())
        for name, (target, began) in list(self._trials.items()):
            self._judge(name, target, self.ports.monotonic() - began)
        for want in self._downloads.wants() if self.ports.transport.connected else ():
            self._send("want", want.encode())
        if self.ports.monotonic() - self._reported > REPORT_S:
            self._report_due = True
        self._pump()

    def farewell(self) -> tuple[str, bytes]:
        """Topic and message of a goodbye."""
        return topics.up(self.id, "presence"), leave(self.record.trust, self.signer, self.boot_id, "goodbye")

    # -- the core's answers

    def _now(self) -> int:
        return int(self.ports.monotonic())

    def _sensed(self) -> Sensed:
        return Sensed({**self.ports.facts(), ONLINE: self.ports.transport.connected}, self._now())

    def _post(self, name: str, event: Event) -> None:
        self._events.append((name, event))

    def _pump(self) -> None:
        while self._events:
            name, event = self._events.popleft()
            slot, commands = step(self.record.slots.get(name, Slot()), event)
            if name in self.record.slots or isinstance(event, Restarted):  # not a slot that is gone meanwhile
                self._store(self.record.with_slot(name, slot))
            for command in commands:
                self._act(name, command)
        if self._report_due:
            self._report()

    def _store(self, record: Record) -> None:
        """Save, then act."""
        if record != self.record:
            self.ports.kept.save(stored := record.noted(record.report_seq))
            self.record = stored
        self._downloads.keep(record.slots)

    def _act(self, name: str, command: Command) -> None:
        match command:
            case Fetch(target):
                self._fetch(name, target)
            case Verify(target):
                self._verify(name, target)
            case Install(target):
                self._post(name, Done("install", target.order, self._now()))
            case Try(target) if target.build:
                self.running[name] = target.build
                self._trials[name] = (target, self.ports.monotonic())
            case Sense():
                self._post(name, self._sensed())
            case Run(build):
                self._run(name, build)
            case Discard():
                self._discard()
            case Report():
                self._report_due = True

    def _fetch(self, name: str, target: Target) -> None:
        try:
            listed = self.ports.kept.document(target.stream)
        except EdgeopsError as error:
            self._post(name, Failed("fetch", target.order, self._now(), error.reason, error.message))
            return
        self._latest = (target.stream, listed)
        self._downloads.begin(name, target, listed)

    def _verify(self, name: str, target: Target) -> None:
        try:
            if target.build:
                builds.check(self.ports.kept, target.build)
        except EdgeopsError as error:
            self._post(name, Failed("verify", target.order, self._now(), error.reason, error.message))
        else:
            self._post(name, Done("verify", target.order, self._now()))

    def _run(self, name: str, build: Build | None) -> None:
        self._trials.pop(name, None)
        self.running.pop(name, None)
        if build is not None:
            try:
                builds.check(self.ports.kept, build)
            except EdgeopsError as error:
                self._post(name, Lost(build.release, self._now(), error.reason))
                return
            self.running[name] = build
        slot = self.record.slots.get(name, Slot())
        if slot.phase == "rollback" and slot.target:
            self._post(name, Done("rollback", slot.target.order, self._now()))

    def _judge(self, name: str, target: Target, elapsed_s: float) -> None:
        verdict = self.ports.verdicts(target, elapsed_s)
        if not verdict.over:
            return
        del self._trials[name]
        if verdict.reason:
            self._post(name, Failed("trial", target.order, self._now(), verdict.reason, verdict.detail))
        else:
            self._post(name, Done("trial", target.order, self._now(), verdict.unproven))

    def _discard(self) -> None:
        try:
            wanted = {side.sha256 for build in self._builds(self.record) for side in builds.parts_of(self.ports.kept, build)}
        except EdgeopsError:
            return  # a build that cannot be read yet must not lose its objects to the sweep
        self.ports.kept.sweep(wanted, self._needed(self.record))

    # -- what comes in

    def _take(self, topic: str, data: bytes) -> None:
        parsed = topics.parse(topic)
        if isinstance(parsed, FrameTopic):
            self._frame(parsed.stream, parsed.frame, data)
        elif parsed.noun == "blk":
            self._frame(data[:32].hex(), int.from_bytes(data[32:BLOCK_HEADER]), data[BLOCK_HEADER:])
        elif parsed.noun == "cmd":
            record, commands = obey(self.record, data)
            self._store(record)
            for name, command in commands:
                self._act(name, command)
        elif parsed.noun == "doc" or (parsed.noun == "desired" and data):  # an empty one: the retained order was taken away
            self._read(data)

    def _frame(self, stream: str, index: int, data: bytes) -> None:
        try:
            if not self._downloads.frame(stream, index, data):
                self._downloads.check_late(stream, index, data, self._latest[1] if stream == self._latest[0] else None)
        except Rejected as error:
            self._refused("blocks", error)

    def _read(self, data: bytes) -> None:
        clock = self.clock
        situation = Situation(
            clock.now(), self._now(), clock.nonce, self.device, self._known(), clock.asked, clock.wall(), clock.sure
        )
        received = receive(self.record, Bundle.decode(data), situation)
        for digest in self._needed(received.record) & received.documents.keys():
            self.ports.kept.put_document(digest, received.documents[digest])
        if received.site:
            self.ports.kept.put_document(envelope.digest_of(received.site, "site"), received.site)
        self._report_due |= versions(received.record.trust) != versions(self.record.trust)
        self._store(received.record)
        if received.anew:
            clock.forget(received.record.trust.time_floor)
        if received.time:
            clock.believe(received.time)
        for line in received.refused:
            self.ports.say(f"{self.id} refused {line}")
            self._report_due = True
        for name, command in received.commands:
            self._act(name, command)

    def _refused(self, what: str, error: EdgeopsError) -> None:
        self.ports.say(f"{self.id} refused {what}: {error}")
        self._store(self.record.counted(f"refused_{what}").counted(f"refused_{what}.{error.reason}"))
        self._report_due = True

    def _builds(self, record: Record) -> set[Build]:
        return {build for slot in record.slots.values() for build in keep(slot)}

    def _known(self) -> dict[str, bytes]:
        """The kept documents of builds; those of streams come again with every order."""
        found = {}
        for build in self._builds(self.record):
            with contextlib.suppress(Rejected):
                found[build.release] = self.ports.kept.document(build.release)
        return found

    def _needed(self, record: Record) -> set[str]:
        """Documents that must be kept for the slots as they are."""
        streams = {slot.target.stream for slot in record.slots.values() if slot.target and slot.phase != "idle"}
        return streams | {build.release for build in self._builds(record)} | {*record.sites}

    # -- reports

    def _send(self, noun: str, payload: bytes) -> bool:
        return self.ports.transport.publish(topics.up(self.id, noun), payload)

    def _report(self) -> None:
        self._report_due = False
        self._reported = self.ports.monotonic()
        if not self.ports.transport.connected:
            return
        self._store(replace(self.record, report_seq=self.record.report_seq + 1))
        state = reporting.state(self.record, self.boot_id, {})
        self._send("state", envelope.seal("state", state.payload(), [self.signer]))
