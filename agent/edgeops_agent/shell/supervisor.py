"""The agent: one loop that takes what comes in, asks the core, stores the answer, then acts on it. It never loads a model."""

import queue
import secrets
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeops.parcel.assembly import Progress, place
from edgeops.parcel.stream import StreamList
from edgeops.wire import canonical, envelope, topics
from edgeops.wire.errors import EdgeopsError, Rejected, Unfit
from edgeops.wire.fields import Fields
from edgeops.wire.messages import Bundle, Presence, Want, seal_tele
from edgeops.wire.root import Site
from edgeops.wire.topics import FrameTopic

from ..core.receive import Situation, obey, open_stream, receive
from ..core.record import Record
from ..core.slot import Command, Discard, Done, Event, Failed, Fetch, Report, Restarted, Slot, Target, Tick
from ..core.update import keep, step
from . import builds, facts, reporting
from .clock import Clock
from .disk import StateFolder, write_whole
from .fetching import StreamFetch
from .identity import Paths, load_signer
from .link import DeviceLink, LinkSettings
from .listen import Listeners
from .runner import Collected, Crashed, Ran, SlotRunner, tick
from .spool import Spool

TICK_S = 0.25
ASK_AGAIN_S = 2.0
REPORT_S = 30.0
BLOCK_HEADER = 36


@dataclass(frozen=True, slots=True)
class Options:
    """How the agent runs: its folder, the local endpoint, how often telemetry is collected (seconds)."""

    state: Path
    host: str = "127.0.0.1"
    port: int = 0
    socket: Path | None = None
    collect_s: float = 10.0


@dataclass(slots=True)
class Download:
    """A stream being fetched for a slot's target; `asked` is when the missing frames were last asked for."""

    slot: str
    target: Target
    fetch: StreamFetch
    topic: str
    asked: float = 0.0
    wait: float = ASK_AGAIN_S


class Supervisor:
    """One enrolled agent. `run` returns when `stop` is called."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.folder = StateFolder(options.state)
        self.record: Record = self.folder.load()
        self.paths = Paths(options.state)
        self.signer = load_signer(self.paths)
        self.boot = secrets.token_hex(16)
        self.nonce = secrets.token_hex(32)
        self.device = facts.capabilities()
        self.clock = Clock(self.record.trust.time_floor)
        self.inbox: queue.Queue[Any] = queue.Queue(maxsize=4096)
        self.spool = Spool(self.folder.spool)
        self.listeners = Listeners.open(options.host, options.port, options.socket)
        self.runners: dict[str, SlotRunner] = {}
        self.downloads: dict[str, Download] = {}
        self._documents: dict[str, bytes] = {}
        self._stopping = False
        self._reported = 0.0
        self.calls = self.errors = 0
        self.link = self._make_link()

    def _make_link(self) -> DeviceLink:
        body, _ = envelope.split(self.paths.site.read_bytes(), "site")
        site = Site.parse(Fields.of(canonical.decode(body, "site"), "site"))
        trust = self.record.trust
        gone = Presence(trust.fleet, trust.device, trust.incarnation, self.boot, "gone")
        settings = LinkSettings(
            site.mqtt[0], trust.device, self.paths.ca, self.paths.certificate, self.paths.tls_key,
            topics.up(trust.device, "presence"), envelope.seal("presence", gone.payload(), [self.signer]),
        )  # fmt: skip
        link = DeviceLink(
            settings, lambda: self._put(("connected",)), lambda topic, data: self._put(("message", topic, data)),
            lambda: secrets.randbelow(1 << 20) / (1 << 20), time.monotonic,
        )  # fmt: skip
        link.subscribe(topics.downs_of(trust.device))
        return link

    def _put(self, item: Any) -> None:
        """From other threads; a flood is dropped rather than kept (whatever matters is asked for again)."""
        try:
            self.inbox.put_nowait(item)
        except queue.Full:
            return

    def stop(self) -> None:
        """Ask `run` to return (safe in a signal handler)."""
        self._stopping = True

    def run(self) -> None:
        """Run until stopped: restart every slot, connect, then one event at a time."""
        for name in self.record.slots.keys() | {"main"}:
            self._runner(name)
            self._feed(name, Restarted(tick()))
        self.link.start()
        try:
            while not self._stopping:
                self._next()
        finally:
            self._close()

    def _next(self) -> None:
        try:
            item = self.inbox.get(timeout=TICK_S)
        except queue.Empty:
            self._timers()
            return
        self._take(item)
        self._timers()

    def _take(self, item: Any) -> None:
        match item:
            case ("connected",):
                self._birth()
            case ("message", topic, data):
                self._message(topic, data)
            case (str(name), Ran()):
                slot = self.record.slots.get(name, Slot())
                if slot.phase == "rollback" and slot.target:
                    self._feed(name, Done("rollback", slot.target.order, tick()))
            case (str(_), Collected(_, window, calls, errors)):
                self._telemetry(window, calls, errors)
            case (str(_), Crashed()):
                self._store(self.record.counted("worker_crashes"))
            case (str(name), event):
                self._feed(name, event)

    # -- the core's answers

    def _feed(self, name: str, event: Event) -> None:
        slot, commands = step(self.record.slots.get(name, Slot()), event)
        if slot != self.record.slots.get(name, Slot()) or name not in self.record.slots:
            self._store(self.record.with_slot(name, slot))
        self._act([(name, command) for command in commands])

    def _store(self, record: Record) -> None:
        """Save, then act: everything after this line may rely on the record. A refusing disk stops the agent, not the model."""
        if record != self.record:
            self.folder.save(record)
            self.record = record

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
                name, self.folder, self.listeners.sockets, self.device.device_class,
                lambda event: self._put((name, event)), self.options.collect_s,
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
                self._command(data)
            elif parsed.noun in ("desired", "doc"):
                self._documents_came(data)
        except EdgeopsError as error:
            self._refused("message", error)

    def _command(self, data: bytes) -> None:
        record, commands = obey(self.record, data)
        self._store(record)
        self._act(list(commands))

    def _refused(self, what: str, error: EdgeopsError) -> None:
        print_line(f"refused {what}: {error}")
        self._store(self.record.counted(f"refused_{what}").counted(f"refused_{what}.{error.reason}"))
        self._report()

    def _documents_came(self, data: bytes) -> None:
        known = self._documents | self._kept()
        situation = Situation(self.clock.now(), tick(), self.nonce, self.device, known)
        received = receive(self.record, Bundle.decode(data), situation)
        if received.time:
            self.clock.believe(received.time)
            self.nonce = secrets.token_hex(32)
        self._documents = dict(list((self._documents | dict(received.documents)).items())[-64:])
        for name in self._needed(received.record) & self._documents.keys():
            self.folder.put_document(name, self._documents[name])
        if received.site:
            write_whole(self.paths.site, received.site, 0o600)
        self._store(received.record)
        for line in received.refused:
            print_line(f"refused {line}")
        self._act(list(received.commands))
        if received.refused:
            self._report()

    def _kept(self) -> dict[str, bytes]:
        names = {b.release for s in self.record.slots.values() for b in keep(s)}
        return {name: self.folder.document(name) for name in names if (self.folder.documents / name).exists()}

    def _needed(self, record: Record) -> set[str]:
        """Documents that must be on disk for the slots as they are."""
        names = {build.release for slot in record.slots.values() for build in keep(slot)}
        return names | {slot.target.stream for slot in record.slots.values() if slot.target and slot.phase != "idle"}

    # -- fetching

    def _fetch(self, name: str, target: Target) -> None:
        for slot, download in list(self.downloads.items()):
            if slot == name:
                self.link.unsubscribe(download.topic)
                del self.downloads[slot]
        try:
            raw = self._documents.get(target.stream) or self.folder.document(target.stream)
            stream = StreamList.parse(Fields.of(canonical.decode(envelope.split(raw, "stream")[0], "stream"), "stream"))
            fetch = StreamFetch(self.folder, target.stream, stream)
        except EdgeopsError as error:
            self._feed(name, Failed("fetch", target.order, tick(), error.reason, error.message, unfit=isinstance(error, Unfit)))
            return
        topic = topics.frames_of("all", target.stream)
        self.downloads[name] = Download(name, target, fetch, topic)
        self.link.subscribe(topic)
        self._fetched(name)

    def _frame(self, stream: str, index: int, data: bytes) -> None:
        wanted = [name for name, download in self.downloads.items() if download.target.stream == stream]
        if not wanted:
            self._stray(stream, index, data)
        for name in wanted:
            download = self.downloads[name]
            download.asked, download.wait = time.monotonic(), ASK_AGAIN_S
            try:
                download.fetch.feed(index, data)
            except Rejected as error:
                self._refused("blocks", error)
            except Unfit as error:
                self._feed(name, Failed("fetch", download.target.order, tick(), error.reason, error.message))
                continue
            self._fetched(name)

    def _stray(self, stream: str, index: int, data: bytes) -> None:
        """A frame nobody waits for: late if a stream list we know names its bytes, else an intruder's."""
        try:
            known = self._documents.get(stream)
            if known is None:
                raise Rejected("unknown-stream", f"frame {index} of a stream no order names")
            place(Progress(open_stream(self.record.trust, known)[1]), index, data)
        except Rejected as error:
            self._refused("blocks", error)

    def _fetched(self, name: str) -> None:
        download = self.downloads[name]
        if not download.fetch.progress.done:
            return
        del self.downloads[name]
        self.link.unsubscribe(download.topic)
        order = download.target.order
        try:
            download.fetch.finish()
        except EdgeopsError as error:
            self._feed(name, Failed("fetch", order, tick(), error.reason, error.message))
            return
        self._feed(name, Done("fetch", order, tick()))

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
        for name, slot in self.record.slots.items():
            if slot.phase != "idle" and tick() >= slot.deadline:
                self._feed(name, Tick(tick()))
        for download in list(self.downloads.values()):
            if self.link.connected and now - download.asked > download.wait:
                download.wait = min(download.wait * 2, 60.0) if download.asked else ASK_AGAIN_S
                download.asked = now
                want = Want(download.target.stream, download.fetch.progress.missing())
                self.link.publish(topics.up(self.record.trust.device, "want"), want.encode())
        if now - self._reported > REPORT_S:
            self._report()
        self._send_spool()

    def _birth(self) -> None:
        trust = self.record.trust
        birth = Presence(
            trust.fleet, trust.device, trust.incarnation, self.boot, "birth", self.nonce,
            facts.birth(self.device), facts.facts(self.folder.root),
        )  # fmt: skip
        self.link.publish(topics.up(trust.device, "presence"), envelope.seal("presence", birth.payload(), [self.signer]))
        for download in self.downloads.values():
            download.asked = 0.0
        self._report()

    def _report(self) -> None:
        self._reported = time.monotonic()
        if not self.link.connected:
            return
        self._store(replace(self.record, report_seq=self.record.report_seq + 1))
        lively = {"calls": self.calls, "errors": self.errors, "spool_dropped": self.spool.dropped}
        state = reporting.state(self.record, self.boot, lively)
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
        self.link.stop((topics.up(trust.device, "presence"), envelope.seal("presence", goodbye.payload(), [self.signer])))
        self.listeners.close()


def print_line(text: str) -> None:
    """One log line on standard output, for the journal."""
    print(text, flush=True)  # noqa: T201


