"""The agent: one loop that takes what comes in, asks the core, stores the answer, then acts on it. It never loads a model."""

import contextlib
import functools
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeops.wire import envelope, topics
from edgeops.wire.errors import EdgeopsError, Rejected, Unfit
from edgeops.wire.messages import Bundle, Presence, seal_tele
from edgeops.wire.topics import FrameTopic

from ..core.receive import Situation, obey, receive
from ..core.record import Record
from ..core.slot import Command, Discard, Done, Event, Failed, Fetch, Lost, Report, Restarted, Run, Slot, Target, Tick
from ..core.update import keep, step
from . import builds, facts, reporting
from .clock import Clock, tick
from .disk import StateFolder, write_whole
from .downloads import Downloads
from .fetching import StreamFetch
from .identity import Paths, load_signer, load_site
from .inbox import Inbox, Message
from .journal import Sparing, say
from .leases import held as leases_held
from .ledger import Ledger, Unsaved
from .link import DeviceLink, LinkSettings
from .listen import Listeners
from .news import Ailing, Collected, Crashed, Ran
from .pointers import Pointers
from .runner import SlotRunner
from .spool import Spool
from .vacancy import Vacancy

TICK_S = 0.25
REPORT_S = 30.0
NEWS_S = 5.0
REFUSED_REPORT_S = 1.0
ASK_ANEW_S = 10.0
REVIVE_S, REVIVE_AT_MOST_S, CALM_S = 5.0, 60.0, 600.0
BLOCK_HEADER = 36
MOST_DOCUMENTS = 64


@dataclass(frozen=True, slots=True)
class Options:
    """How the agent runs: its folder, the local endpoint, how often telemetry is collected (seconds)."""

    state: Path
    host: str = "127.0.0.1"
    port: int = 0
    socket: Path | None = None
    collect_s: float = 10.0


class Supervisor:
    """One enrolled agent. `run` returns when `stop` is called."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.folder = StateFolder(options.state)
        self.folder.load()  # a folder that is none of ours is not even locked
        self.folder.claim()
        with contextlib.suppress(Unfit):  # a folder of an older agent on a full disk
            self.folder.prepare()
        self.ledger = Ledger(self.folder)
        self.paths = Paths(options.state)
        self.signer = load_signer(self.paths)
        self.boot = secrets.token_hex(16)
        self.nonce = secrets.token_hex(32)
        self.device = facts.capabilities()
        self.clock = Clock(self.record.trust.time_floor)
        self.inbox = Inbox()
        self.spool = Spool(self.folder.spool)
        self.pointers = Pointers(self.folder, self.device.device_class)
        self.log = Sparing()
        self.runners: dict[str, SlotRunner] = {}
        self.calls = self.errors = 0
        self._documents = self._kept()
        self._postponed: list[tuple[str, Any]] = []
        self._revive: dict[str, float] = {}
        self._ailed: dict[str, tuple[float, float]] = {}
        self._stopping = self._missed = False
        self._reported = self._born = 0.0
        self._report_wait = REPORT_S
        self._report_at = time.monotonic() + REPORT_S
        self.link = self._make_link()
        self.downloads = Downloads(
            functools.partial(StreamFetch, self.folder), self.link, lambda name, event: self.inbox.put((name, event))
        )
        self.listeners = Listeners.open(options.host, options.port, options.socket)
        self.vacancy = Vacancy(self.listeners.sockets)

    @property
    def record(self) -> Record:
        """The record as it is on disk, but for counters."""
        return self.ledger.record

    def _make_link(self) -> DeviceLink:
        site, trust = load_site(self.paths), self.record.trust
        gone = Presence(trust.fleet, trust.device, trust.incarnation, self.boot, "gone")
        settings = LinkSettings(
            site.mqtt[0], trust.device, self.paths.ca, self.paths.certificate, self.paths.tls_key,
            topics.up(trust.device, "presence"), envelope.seal("presence", gone.payload(), [self.signer]),
        )  # fmt: skip
        link = DeviceLink(
            settings, lambda: self.inbox.put("connected"), lambda topic, data: self.inbox.offer(Message(topic, data)),
            lambda: secrets.randbelow(1 << 20) / (1 << 20), time.monotonic, self.clock.least,
        )  # fmt: skip
        link.subscribe(topics.downs_of(trust.device))
        return link

    def stop(self) -> None:
        """Ask `run` to return (safe in a signal handler)."""
        self._stopping = True

    def run(self) -> None:
        """Run until stopped: restart every slot, connect, then one event at a time."""
        try:
            for name in self.record.slots.keys() | {"main"}:
                self._runner(name)
                self._handle((name, Restarted(tick())))
            self.link.start()
            while not self._stopping:
                item = self.inbox.take(TICK_S)
                if item is not None:
                    self._handle(item)
                self._timers()
        finally:
            self._close()

    def _handle(self, item: Any) -> None:
        """Take one item. What the disk does not let us save is not acted upon: events wait, messages are asked for again."""
        try:
            self._take(item)
        except Unsaved:
            if isinstance(item, Message):
                self._missed = True
                return
            name, event = item
            if isinstance(event, Restarted):  # what is committed must run after any restart; nothing new is decided by that
                self._runner(name).do(Run(self.record.slots.get(name, Slot()).current))
            if not isinstance(event, Tick):
                self._postponed.append(item)

    def _take(self, item: Any) -> None:
        match item:
            case "connected":
                self._birth()
            case Message(topic, data):
                self._message(topic, data)
            case (str(name), Ran()):
                slot = self.record.slots.get(name, Slot())
                if slot.phase == "rollback" and slot.target:
                    self._feed(name, Done("rollback", slot.target.order, tick()))
            case (str(_), Collected(_, window, calls, errors)):
                self._telemetry(window, calls, errors)
            case (str(_), Crashed()):
                self.ledger.store(self.record.counted("worker_crashes"))
            case (str(name), Ailing(build, reason)):
                self._ailing(name, Lost(build.release, tick(), reason))
            case (str(name), event):
                self._feed(name, event)

    def _ailing(self, name: str, lost: Lost) -> None:
        """Go back to the previous build; where there is none, this one is better than nothing: try again, less and less often."""
        if self.record.slots.get(name, Slot()).previous is not None:
            self._feed(name, lost)
            return
        now, (since, last) = time.monotonic(), self._ailed.get(name, (float("-inf"), 0.0))
        wait = REVIVE_S if now - since > CALM_S else min(last * 2, REVIVE_AT_MOST_S)
        self._ailed[name], self._revive[name] = (now, wait), now + wait
        say(f"slot {name}: nothing runs ({lost.reason}); the model is started again in {wait:g} s")

    # -- the core's answers

    def _feed(self, name: str, event: Event) -> None:
        slot, commands = step(self.record.slots.get(name, Slot()), event)
        if slot != self.record.slots.get(name, Slot()) or name not in self.record.slots:
            self._store(self.record.with_slot(name, slot))
        self._act([(name, command) for command in commands])

    def _store(self, record: Record) -> None:
        """Save, then act: everything after this line may rely on the record. Raises Unsaved."""
        self.ledger.store(record)
        for name, slot in record.slots.items():
            self.downloads.keep(name, slot)
            self.pointers.show(name, slot.current)

    def _act(self, commands: list[tuple[str, Command]]) -> None:
        report = False
        for name, command in commands:
            match command:
                case Fetch(target):
                    self._fetch(name, target)
                case Discard():
                    self._discard()
                case Report():
                    report = True
                case _:
                    self._runner(name).do(command)
        if report:
            self._report()

    def _runner(self, name: str) -> SlotRunner:
        if name not in self.runners:
            runner = SlotRunner(
                name, self.folder, self.listeners.sockets, self.vacancy, self.device.device_class,
                lambda event: self.inbox.put((name, event)), self.options.collect_s,
            )  # fmt: skip
            self.runners[name] = runner
            runner.start()
        return self.runners[name]

    # -- what comes in

    def _message(self, topic: str, data: bytes) -> None:
        try:
            parsed = topics.parse(topic)
            if isinstance(parsed, FrameTopic):
                self._frame(parsed.stream, parsed.frame, data)
            elif parsed.noun == "blk":
                self._frame(data[:32].hex(), int.from_bytes(data[32:BLOCK_HEADER]), data[BLOCK_HEADER:])
            elif parsed.noun == "cmd":
                record, commands = obey(self.record, data)
                self._store(record)
                self._act(list(commands))
            elif parsed.noun in ("desired", "doc"):
                self._documents_came(data)
        except Unsaved:
            raise
        except EdgeopsError as error:
            self._refused("message", error)

    def _refused(self, what: str, error: EdgeopsError) -> None:
        """Count it. Neither a save nor a report each, or a flood would wear out the disk and the link."""
        self.log.say(f"{what}.{error.reason}", f"refused {what}: {error}")
        self.ledger.store(self.record.counted(f"refused_{what}").counted(f"refused_{what}.{error.reason}"))
        self._report_soon()

    def _documents_came(self, data: bytes) -> None:
        situation = Situation(self.clock.now(), tick(), self.nonce, self.device, self._documents)
        received = receive(self.record, Bundle.decode(data), situation)
        if received.site:
            self._keep_site(received.site)
        documents = self._documents | dict(received.documents)
        self._keep_documents(received.record, documents)
        self._store(received.record)
        needed = self._needed(received.record)
        recent = list(documents)[-MOST_DOCUMENTS:]
        self._documents = {name: document for name, document in documents.items() if name in needed or name in recent}
        if received.time:
            self.clock.believe(received.time)
            self.nonce = secrets.token_hex(32)
        for line in received.refused:
            self.log.say(line.partition(":")[0], f"refused {line}")
        self._act(list(received.commands))
        if received.refused:
            self._report_soon()

    def _keep_site(self, site: bytes) -> None:
        """Before the record says that this site is ours, since the record would never take it again."""
        try:
            write_whole(self.paths.site, site, 0o600)
        except Unfit as error:
            raise Unsaved(error.reason, error.message) from None

    def _keep_documents(self, record: Record, documents: dict[str, bytes]) -> None:
        """Put on disk what the slots need; what does not fit now fails the order when it is fetched."""
        for name in self._needed(record) & documents.keys():
            try:
                self.folder.put_document(name, documents[name])
            except Unfit as error:
                self.log.say("document", f"document {name[:12]} is not kept: {error}")

    def _kept(self) -> dict[str, bytes]:
        names = self._needed(self.record)
        return {name: self.folder.document(name) for name in names if (self.folder.documents / name).is_file()}

    def _needed(self, record: Record) -> set[str]:
        """Documents that must be on disk for the slots as they are."""
        names = {build.release for slot in record.slots.values() for build in keep(slot)}
        return names | {slot.target.stream for slot in record.slots.values() if slot.target and slot.phase != "idle"} - {""}

    # -- fetching

    def _fetch(self, name: str, target: Target) -> None:
        try:
            for digest in {target.stream, target.build.release if target.build else target.stream}:
                if digest in self._documents:
                    self.folder.put_document(digest, self._documents[digest])
            listed = self.folder.document(target.stream)
        except EdgeopsError as error:
            self.inbox.put((name, Failed("fetch", target.order, tick(), error.reason, error.message)))
            return
        self.downloads.begin(name, target, listed)

    def _frame(self, stream: str, index: int, data: bytes) -> None:
        try:
            if not self.downloads.frame(stream, index, data):
                self.downloads.check_late(stream, index, data, self._documents.get(stream))
        except Rejected as error:
            self._refused("blocks", error)

    def _discard(self) -> None:
        wanted: set[str] = set()
        for slot in self.record.slots.values():
            for build in keep(slot):
                try:
                    wanted |= {side.sha256 for side in builds.parts_of(self.folder, build)}
                except EdgeopsError:
                    return  # a build that cannot be read yet must not lose its objects to the sweep
        self.folder.sweep(wanted, self._needed(self.record))

    # -- timers and reports

    def _timers(self) -> None:
        now = time.monotonic()
        if self.ledger.ready:
            waiting, self._postponed = self._postponed, []
            for item in waiting:
                self._handle(item)
            for name, slot in self.record.slots.items():
                if slot.phase != "idle" and tick() >= slot.deadline:
                    self._handle((name, Tick(tick())))
        for name in [name for name, at in self._revive.items() if now >= at]:
            del self._revive[name]
            self._runner(name).do(Run(self.record.slots.get(name, Slot()).current))
        if self.link.connected:
            for want in self.downloads.wants():
                self.link.publish(topics.up(self.record.trust.device, "want"), want.encode())
            if (self._missed or self.inbox.missed) and self.ledger.ready and now - self._born > ASK_ANEW_S:
                self._birth()
        if now >= self._report_at:
            self._report(news=self._report_wait < NEWS_S)
        self.ledger.settle()
        self._send_spool()

    def _birth(self) -> None:
        """Say that we are here; the manager answers with the time and with what we should run."""
        self._born = time.monotonic()
        self._missed = self.inbox.missed = False
        trust = self.record.trust
        birth = Presence(
            trust.fleet, trust.device, trust.incarnation, self.boot, "birth", self.nonce,
            facts.birth(self.device), facts.facts(self.folder.root),
        )  # fmt: skip
        self.link.publish(topics.up(trust.device, "presence"), envelope.seal("presence", birth.payload(), [self.signer]))
        self.downloads.ask_soon()
        self._report()

    def _report_soon(self) -> None:
        """For what others can provoke: at most one report a second."""
        self._report_wait = REFUSED_REPORT_S
        self._report_at = min(self._report_at, self._reported + REFUSED_REPORT_S)

    def _report(self, news: bool = True) -> None:
        """Say how everything stands. News is repeated after 5, 10 and 20 seconds, since nobody may have been listening."""
        self._reported = time.monotonic()
        self._report_wait = NEWS_S if news else min(2 * self._report_wait, REPORT_S)
        self._report_at = self._reported + self._report_wait
        for name, slot in self.record.slots.items():
            self.pointers.show(name, slot.current)
        if not self.link.connected:
            return
        try:
            number = self.ledger.report_number()
        except Unsaved:
            return
        leases = leases_held(self.folder.root)
        committed = {slot.current.release for slot in self.record.slots.values() if slot.current}
        lively = {
            "calls": self.calls, "errors": self.errors, "spool_dropped": self.spool.dropped,
            "messages_dropped": self.inbox.dropped, "saves_refused": self.ledger.refusals,
            "leases": len(leases), "leases_behind": sum(lease.get("digest") not in committed for lease in leases),
        }  # fmt: skip
        state = reporting.state(self.record, self.boot, lively, number)
        self.link.publish(topics.up(state.device, "state"), envelope.seal("state", state.payload(), [self.signer]))

    def _telemetry(self, window: bytes | None, calls: int, errors: int) -> None:
        self.calls += calls
        self.errors += errors
        if window is not None:
            self.spool.add(seal_tele(window, self.signer))

    def _send_spool(self) -> None:
        while self.link.connected and (item := self.spool.oldest()) is not None:
            if not self.link.publish(topics.up(self.record.trust.device, "tele"), item[1]):
                return
            self.spool.sent(item[0])

    def _close(self) -> None:
        trust = self.record.trust
        goodbye = Presence(trust.fleet, trust.device, trust.incarnation, self.boot, "goodbye")
        for runner in self.runners.values():
            runner.stop()
        self.vacancy.close()
        while isinstance(item := self.inbox.take(0), tuple):
            if isinstance(item[1], Collected):  # the last counts of the workers that have just ended
                self._take(item)
        self.ledger.settle(at_once=True)
        self.link.stop((topics.up(trust.device, "presence"), envelope.seal("presence", goodbye.payload(), [self.signer])))
        self.listeners.close()
        self.folder.release()
