"""The agent: one loop that takes what comes in, asks the core, stores the answer, then acts on it. It never loads a model."""

import contextlib
import functools
import secrets
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeops.wire import topics
from edgeops.wire.errors import EdgeopsError, Rejected, Unfit
from edgeops.wire.messages import Bundle
from edgeops.wire.topics import FrameTopic
from edgeops.wire.trust import versions

from ..core.receive import obey
from ..core.record import Record
from ..core.slot import Command, Discard, Done, Event, Failed, Fetch, Lost, Report, Restarted, Run, Slot, Target, Tick
from ..core.update import step
from . import builds, facts
from .calling import make_link, settings_for
from .clock import Clock, tick
from .credentials import join_files
from .disk import StateFolder
from .documents import Documents, needed
from .downloads import Downloads
from .fetching import StreamFetch
from .identity import Paths, load_signer
from .inbox import Inbox, Message
from .intake import Intake
from .journal import Sparing, say
from .ledger import Ledger, Unsaved
from .link import LinkSettings
from .listen import Listeners
from .news import Ailing, Collected, Crashed, Ran
from .pointers import Pointers
from .revival import Revival
from .runner import SlotRunner
from .upkeep import Found, Renewed, Upkeep
from .vacancy import Vacancy
from .voice import Voice

TICK_S = 0.25
ASK_ANEW_S = 10.0
BLOCK_HEADER = 36


@dataclass(frozen=True, slots=True)
class Options:
    """How the agent runs: its folder, the local endpoint, how often telemetry is collected (seconds), the device's own clock."""

    state: Path
    host: str = "127.0.0.1"
    port: int = 0
    socket: Path | None = None
    collect_s: float = 10.0
    wall: Callable[[], float] = time.time


class Supervisor:
    """One enrolled agent. `run` returns when `stop` is called."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.folder = StateFolder(options.state)
        self.folder.load()  # a folder that is none of ours is not even locked
        self.folder.claim()
        with contextlib.suppress(Unfit):  # a folder of an older agent on a full disk
            self.folder.prepare()
            join_files(Paths(options.state))
        self.ledger = Ledger(self.folder)
        self.paths = Paths(options.state)
        self.signer = load_signer(self.paths)
        self.boot = secrets.token_hex(16)
        self.device = facts.capabilities()
        self.clock = Clock(self.record.trust.time_floor, options.wall)
        self.inbox = Inbox()
        self.voice = Voice(self.folder, self.ledger, self.signer, self.boot, self.device)
        self.pointers = Pointers(self.folder, self.device.device_class)
        self.log = Sparing()
        self.revival = Revival()
        self.runners: dict[str, SlotRunner] = {}
        self.documents = Documents(self.folder, self.record, self.log)
        self._postponed: list[tuple[str, Any]] = []
        self._stopping = self._missed = False
        self._born = 0.0
        self.upkeep = Upkeep(self.paths, self.signer, self.clock, self.inbox.put, self.ledger.report_number)
        self.intake = Intake(
            self.folder, self.ledger, self.documents, self.clock, self.device, self.log, self._store, self._relink,
            self.upkeep.lost,
        )  # fmt: skip
        self.intake.begin()
        self.link = self.voice.mouth = make_link(self._link_settings(), self.inbox, self.clock)
        self.downloads = Downloads(
            functools.partial(StreamFetch, self.folder), self.link, lambda name, event: self.inbox.put((name, event))
        )
        self.listeners = Listeners.open(options.host, options.port, options.socket)
        self.vacancy = Vacancy(self.listeners.sockets)

    @property
    def record(self) -> Record:
        """The record as it is on disk, but for counters."""
        return self.ledger.record

    def _link_settings(self) -> LinkSettings:
        return settings_for(self.paths, self.intake.sites(), self.record.trust.device, self.voice.presence("gone"))

    def _relink(self) -> None:
        self.link.change(self._link_settings())

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
        """Take one item. No error ends the loop: an agent that is started anew would meet the same item again."""
        try:
            self._take(item)
        except Unsaved:
            self._put_off(item)
        except Exception:
            self._stumbled(item)

    def _put_off(self, item: Any) -> None:
        """What the disk does not let us save is not acted upon: events wait, messages are asked for again."""
        if not isinstance(item, tuple):
            self._missed = True
            return
        name, event = item
        failed = isinstance(event, Failed) and event.phase == "trial"
        if failed or isinstance(event, Restarted):
            self._run_committed(name)
        if not isinstance(event, Tick):
            self._postponed.append(item)

    def _stumbled(self, item: Any) -> None:
        """What nobody thought of: counted, and the order at hand has failed, once; what is committed runs in any case."""
        self.log.say("internal", f"not understood: {traceback.format_exc()}", "error")
        with contextlib.suppress(Exception):
            self.ledger.store(self.record.counted("internal_errors"))
        if not (isinstance(item, tuple) and isinstance(item[1], Event | Ran)):
            return
        name, slot = item[0], self.record.slots.get(item[0], Slot())
        failed = Failed(slot.phase, slot.target.order if slot.target else 0, tick(), "internal", "the agent did not understand it")
        try:
            self._feed(name, failed)
        except Unsaved:
            self._put_off((name, failed))
        except Exception:
            self.log.say("internal", f"slot {name} stays as it is: {traceback.format_exc()}", "error", "again", slot=name)
        if not isinstance(item[1], Tick):
            self._run_committed(name)

    def _run_committed(self, name: str) -> None:
        """Nothing new is decided by that."""
        self._runner(name).do(Run(self.record.slots.get(name, Slot()).current))

    def _take(self, item: Any) -> None:
        match item:
            case "connected":
                self._birth()
            case Message(topic, data):
                self._message(topic, data)
            case Found(documents):
                self._documents_came(Bundle(documents))
            case Renewed():
                self._relink()
            case (str(name), Ran()):
                slot = self.record.slots.get(name, Slot())
                if slot.phase == "rollback" and slot.target:
                    self._feed(name, Done("rollback", slot.target.order, tick()))
            case (str(_), Collected(_, window, calls, errors)):
                self.voice.telemetry(window, calls, errors)
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
        wait = self.revival.plan(name)
        text = f"slot {name}: nothing runs ({lost.reason}); the model is started again in {wait:g} s"
        say("model", text, "error", slot=name, release=lost.release, reason=lost.reason, again_s=wait)

    # -- the core's answers

    def _feed(self, name: str, event: Event) -> None:
        slot, commands = step(self.record.slots.get(name, Slot()), event)
        if slot != self.record.slots.get(name, Slot()) or (isinstance(event, Restarted) and name not in self.record.slots):
            self._store(self.record.with_slot(name, slot))
        self._act([(name, command) for command in commands])

    def _store(self, record: Record) -> None:
        """Save, then act: everything after this line may rely on the record. Raises Unsaved."""
        gone = dict.fromkeys(self.record.slots, Slot())
        self.ledger.store(record)
        self.downloads.keep(record.slots)
        for name, slot in {**gone, **record.slots}.items():
            self.pointers.show(name, slot.current)

    def _act(self, commands: list[tuple[str, Command]]) -> None:
        report = False
        for name, command in commands:
            match command:
                case Fetch(target):
                    self._fetch(name, target)
                case Discard():
                    builds.sweep(self.folder, self.record, needed(self.record))
                case Report():
                    report = True
                case _:
                    self._runner(name).do(command)
        if report:
            self.voice.report()

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
            elif parsed.noun == "doc" or (parsed.noun == "desired" and data):  # an empty one: the retained order was taken away
                self._documents_came(Bundle.decode(data))
        except Unsaved:
            raise
        except EdgeopsError as error:
            self._refused("message", error)
        except Exception:  # whatever the other side found that we did not think of must not end the agent
            self.log.say("internal", f"a message on {topic[:128]} was not understood: {traceback.format_exc()}", "error", "message")
            self._refused("message", Rejected("internal", "not understood"))

    def _refused(self, what: str, error: EdgeopsError) -> None:
        """Count it. Neither a save nor a report each, or a flood would wear out the disk and the link."""
        self.log.say("refused", f"refused {what}: {error}", kind=f"{what}.{error.reason}", what=what, reason=error.reason)
        self.ledger.store(self.record.counted(f"refused_{what}").counted(f"refused_{what}.{error.reason}"))
        self.voice.report_soon()

    def _documents_came(self, bundle: Bundle) -> None:
        before = versions(self.record.trust)
        received = self.intake.take(bundle, self.link.way.site if self.link.way else 0)
        self._act(list(received.commands))
        if received.refused or versions(self.record.trust) != before:
            self.voice.report_soon()

    # -- fetching

    def _fetch(self, name: str, target: Target) -> None:
        try:
            listed = self.documents.for_fetch(target)
        except EdgeopsError as error:
            self.inbox.put((name, Failed("fetch", target.order, tick(), error.reason, error.message)))
            return
        self.downloads.begin(name, target, listed)

    def _frame(self, stream: str, index: int, data: bytes) -> None:
        try:
            if not self.downloads.frame(stream, index, data):
                self.downloads.check_late(stream, index, data, self.documents.known.get(stream))
        except Rejected as error:
            self._refused("blocks", error)

    # -- time passes

    def _timers(self) -> None:
        now = time.monotonic()
        if self.ledger.ready:
            waiting, self._postponed = self._postponed, []
            for item in waiting:
                self._handle(item)
            for name, slot in self.record.slots.items():
                if slot.phase != "idle" and tick() >= slot.deadline:
                    self._handle((name, Tick(tick())))
        for name in self.revival.due():
            self._run_committed(name)
        if self.link.connected:
            for want in self.downloads.wants():
                self.voice.want(want)
            if (self._missed or self.inbox.missed) and self.ledger.ready and now - self._born > ASK_ANEW_S:
                self._birth()
        self.upkeep.look(self.record, self.intake.sites, self.link)
        for name, slot in self.record.slots.items():
            self.pointers.show(name, slot.current)
        self.ledger.settle()
        self.voice.lively["messages_dropped"] = self.inbox.dropped
        self.voice.speak()

    def _birth(self) -> None:
        self._born = time.monotonic()
        self._missed = self.inbox.missed = False
        self.voice.birth(self.intake.ask())
        self.downloads.ask_soon()

    def _close(self) -> None:
        for runner in self.runners.values():
            runner.stop()
        self.vacancy.close()
        while (item := self.inbox.take(0)) is not None:
            if isinstance(item, tuple) and isinstance(item[1], Collected):  # last counts of the workers that have just ended
                self._take(item)
        self.ledger.settle(at_once=True)
        self.link.stop(self.voice.presence("goodbye"))
        self.listeners.close()
        self.folder.release()
