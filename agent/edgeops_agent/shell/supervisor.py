"""The agent: one loop that takes what comes in, asks the core, stores the answer, then acts on it. It never loads a model."""

import contextlib
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeops.wire.errors import EdgeopsError, Unfit
from edgeops.wire.messages import Bundle

from ..core.receive import rested
from ..core.record import Record
from ..core.slot import Build, Command, Discard, Done, Event, Failed, Fetch, Lost, Report, Restarted, Run, Sense, Slot, Target
from ..core.update import step
from . import builds, chronicle, rounds
from .calling import settings_for
from .clock import Clock
from .composure import Composure
from .consent import Consent
from .credentials import join_files
from .disk import StateFolder
from .documents import Documents, needed
from .downloads import Downloads
from .fetching import StreamFetch
from .gates import Gates
from .hearing import Hearing
from .identity import Paths, load_signer
from .inbox import Inbox, Message
from .intake import Intake
from .journal import Sparing, say
from .ledger import Ledger, Unsaved
from .link import LinkSettings
from .mending import Mending
from .news import Ailing, Collected, Crashed, Ran
from .notify import Lifeline
from .pointers import Pointers
from .ports import Ports, Runner
from .revival import Revival
from .upkeep import Found, Renewed, Upkeep
from .vacancy import Vacancy
from .voice import Voice

TICK_S = 0.25
ASK_ANEW_S = 10.0


@dataclass(frozen=True, slots=True)
class Options:
    """How the agent runs: its folder, the local endpoint, how often telemetry is collected (seconds)."""

    state: Path
    host: str = "127.0.0.1"
    port: int = 0
    socket: Path | None = None
    collect_s: float = 10.0


class Supervisor:
    """One enrolled agent. `run` returns when `stop` is called; who drives it otherwise calls `begin`, `turn` …, `close`."""

    def __init__(self, options: Options, ports: Ports = Ports()) -> None:
        self.options, self.ports = options, ports
        self.folder, self.paths = StateFolder(options.state, ports.files), Paths(options.state, ports.files)
        self.folder.load()  # a folder that is none of ours is not even locked
        self.folder.claim()
        with contextlib.suppress(Unfit):  # a folder of an older agent on a full disk
            self.folder.prepare()
            join_files(self.paths)
        self.ledger = Ledger(self.folder, ports.monotonic)
        self.signer = load_signer(self.paths)
        self.device = ports.capabilities()
        self.clock = Clock(self.record.trust.time_floor, ports.wall, ports.monotonic)
        self.inbox = Inbox()
        self.voice = Voice(self.folder, self.ledger, self.signer, ports.draw(16).hex(), self.device, ports.monotonic)
        self.pointers = Pointers(self.folder, self.device.device_class, ports.monotonic)
        self.log = Sparing(now=ports.monotonic)
        self.revival = Revival(ports.monotonic)
        self.runners: dict[str, Runner] = {}
        self.documents = Documents(self.folder, self.record, self.log)
        self.composure = Composure(self.ledger, self.clock, self.log, self._take, self._feed, self._run_committed)
        self._stopping = False
        self._born = 0.0
        self.upkeep = Upkeep(
            self.paths, self.signer, self.clock, self.inbox.put, self.ledger.report_number, ports.fetch, ports.monotonic,
            ports.chance, ports.aside,
        )  # fmt: skip
        self._converse()
        self.listeners = ports.listen(options.host, options.port, options.socket)
        self.vacancy = Vacancy(self.listeners.sockets, [name for name, slot in self.record.slots.items() if slot.current])

    def _converse(self) -> None:
        """The rooms that listen and speak."""
        self.intake = Intake(
            self.folder, self.ledger, self.documents, self.clock, self.device, self.log, self._store, self._relink,
            self.upkeep.lost, self.ports.draw,
        )  # fmt: skip
        self.intake.begin()
        self.link = self.voice.mouth = self.ports.link(self._link_settings(), self.inbox, self.clock, self.ports.chance)
        self.downloads = Downloads(
            functools.partial(StreamFetch, self.folder), self.link, lambda name, event: self.inbox.put((name, event)),
            self.ports.monotonic,
        )  # fmt: skip
        self.mending = Mending(self.folder, self.ledger, self.documents, self.link, self._renew_worker, self.ports.monotonic)
        downloads = (self.downloads, self.mending.downloads)
        self.senses = self.ports.senses(self.folder.root, lambda: self.clock.now() if self.clock.sure else None)
        consent = Consent(self.folder.root, self.ports.files)
        self.gates = Gates(self.senses, consent, self.clock, lambda: self.link.connected and self.clock.sure)
        self.voice.waits, self.voice.sensed = self.gates.waits, self.senses.latest
        self.hearing = Hearing(
            self.ledger, self.intake, self.documents, downloads, self.link, self.voice, self.log, self._store, self._act
        )

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
        """Run until stopped."""
        try:
            line = Lifeline()
            self.begin()
            line.ready()
            while not self._stopping:
                self.turn(TICK_S)
                line.beat()
        finally:
            self.close()

    def begin(self) -> None:
        """Restart every slot, then connect."""
        for name in sorted(self.record.slots.keys() | {"main"}):
            self._runner(name)
            self.composure.handle((name, Restarted(self.clock.tick())))
        self.senses.start()
        self.link.start()

    def turn(self, seconds: float = 0.0) -> bool:
        """Take one item, waiting for it so long at most, then see to what is due; whether there was one."""
        if (item := self.inbox.take(seconds)) is not None:
            self.composure.handle(item)
        self._timers()
        return item is not None

    def _renew_worker(self, name: str, build: Build) -> None:
        self._runner(name).do(build)

    def _run_committed(self, name: str, instead: Build | None = None) -> None:
        """Nothing new is decided by that."""
        self._runner(name).do(Run(instead or self.record.slots.get(name, Slot()).current))

    def _take(self, item: Any) -> None:
        match item:
            case "connected":
                self._birth()
            case Message(topic, data):
                self.hearing.message(topic, data)
            case Found(documents):
                self.hearing.came(Bundle(documents))
            case Renewed():
                self._relink()
            case (str(name), Ran(build)):
                slot = self.record.slots.get(name, Slot())
                if slot.phase == "rollback" and slot.target and build == slot.current:
                    self._feed(name, Done("rollback", slot.target.order, self.clock.tick()))
            case (str(_), Collected(_, window, calls, errors)):
                self.voice.telemetry(window, calls, errors)
            case (str(name), Crashed(_, _, words)):
                self.voice.crashes[name] = words
                self.ledger.store(self.record.counted("worker_crashes"))
                self.voice.report_soon()
            case (str(name), Ailing(build, reason)):
                self._ailing(name, Lost(build.release, self.clock.tick(), reason))
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

    def _feed(self, name: str, event: Event) -> None:
        slot, commands = step(self.record.slots.get(name, Slot()), event)
        if slot != self.record.slots.get(name, Slot()) or (isinstance(event, Restarted) and name not in self.record.slots):
            self._store(self.record.with_slot(name, slot))
        self._act([(name, command) for command in commands])

    def _store(self, record: Record) -> None:
        """Save, then act: everything after this line may rely on the record. Raises Unsaved."""
        before = self.record.slots
        self.ledger.store(record)
        chronicle.tell(before, record.slots)
        self.downloads.keep(record.slots)
        for name, slot in {**dict.fromkeys(before, Slot()), **record.slots}.items():
            self.pointers.show(name, slot.current)

    def _act(self, commands: Sequence[tuple[str, Command]]) -> None:
        for name, command in commands:
            match command:
                case Fetch(target):
                    self._fetch(name, target)
                case Discard():
                    builds.sweep(self.folder, self.record, needed(self.record))
                case Report():
                    pass  # once, when all else is done
                case Sense():
                    self.gates.ask(name)
                case _:
                    self._runner(name).do(command)
        if any(isinstance(command, Report) for _, command in commands):
            self.voice.report()

    def _runner(self, name: str) -> Runner:
        if name not in self.runners:
            runner = self.ports.runner(
                name, self.folder, self.listeners.sockets, self.vacancy, self.device.device_class,
                lambda event: self.inbox.put((name, event)), self.options.collect_s,
            )  # fmt: skip
            self.runners[name] = runner
            runner.start()
        return self.runners[name]

    def _fetch(self, name: str, target: Target) -> None:
        try:
            listed = self.documents.for_fetch(target)
        except EdgeopsError as error:
            self.inbox.put((name, Failed("fetch", target.order, self.clock.tick(), error.reason, error.message)))
            return
        self.downloads.begin(name, target, listed)

    def _timers(self) -> None:
        now, due = self.ports.monotonic(), functools.partial(rounds.step, self.ledger, self.log)
        if self.ledger.ready:
            with due("deadlines"):
                self.composure.go_on()
                for late in rounds.overdue(self.record, self.clock.tick()):
                    self.composure.handle(late)
            with due("gates"):
                for told in list(self.gates.news(self.record)):
                    self.composure.handle(told)
        for name in self.revival.due(self.record.slots):
            with due("revival"):
                self._run_committed(name)
        if self.link.connected:
            with due("wants"):
                for want in (*self.downloads.wants(), *self.mending.wants()):
                    self.voice.want(want)
            if (self.composure.missed or self.inbox.missed) and self.ledger.ready and now - self._born > ASK_ANEW_S:
                with due("birth"):
                    self._birth()
        with due("upkeep"):
            self.upkeep.look(self.record, self.intake.sites, self.link)
        with due("mending"):
            self.mending.look()
        with due("pointers"):
            for name, slot in self.record.slots.items():
                self.pointers.show(name, slot.current)
        with due("counts"):
            self.ledger.settle()
        with due("reports"):
            self.voice.lively["messages_dropped"] = self.inbox.dropped
            self.voice.speak()

    def _birth(self) -> None:
        self._born = self.ports.monotonic()
        self.inbox.missed, self.composure.missed = False, True  # should it stumble
        self.composure.missed = not self.voice.birth(self.intake.ask())
        self.downloads.ask_soon()

    def close(self) -> None:
        """Stop what runs, say goodbye, give everything back."""
        with contextlib.suppress(Unsaved):
            self._store(rested(self.record))
        for runner in self.runners.values():
            runner.stop()
        self.senses.stop()
        self.vacancy.close()
        while (item := self.inbox.take(0)) is not None:
            if isinstance(item, tuple) and isinstance(item[1], Collected):  # last counts of the workers that have just ended
                self.composure.handle(item)
        self.ledger.settle(at_once=True)
        self.link.stop(self.voice.presence("goodbye"))
        self.listeners.close()
        self.folder.release()
