"""Carrying out the commands of one slot: checking, trying, running builds in workers. All worker contact is in its own thread.

It decides nothing: what happened goes to the supervisor's inbox as an event of the update machine.
"""

import contextlib
import queue
import socket
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeops.wire.errors import EdgeopsError, Unfit

from ..core.health import Evidence, judge
from ..core.slot import Build, Command, Done, Event, Failed, Install, Lost, Run, Target, Try, Verify
from . import builds
from .chronicle import tell_build
from .clock import tick
from .disk import StateFolder, refusals
from .journal import say
from .news import Ailing, Collected, Crashed, Ran
from .vacancy import Vacancy
from .workers import DRAIN_SECONDS, Worker

WATCH_S = 0.2
MAX_CRASHES = 3
STABLE_S = 60.0
AGAIN_S = (1.0, 2.0, 4.0)
LEAVE_S = 2.0
MOST_WINDOW = 32 << 10
PASSING = ("memory", "unresponsive", "busy", "no-process", "start-timeout", "load-timeout", "call-timeout", "crashed")
"""What may go over by itself, so that a build which fails so is tried again before it is given up."""


@dataclass(slots=True)
class Trial:
    """A candidate taking calls since `began` (monotonic seconds); `previous_us` is the old model's median."""

    target: Target
    began: float
    previous_us: int


Post = Callable[[Event | Ran | Collected | Crashed | Ailing], None]


@dataclass(slots=True)
class Live:
    """The worker that takes the calls now, and what it has counted since it began."""

    build: Build
    worker: Worker
    since: float
    crashes: int = 0
    calls: int = 0
    errors: int = 0
    latency_us: int = 0


class SlotRunner:
    """One slot's hands. `listeners` are the bound sockets workers accept on, `vacancy` answers there while none does; `post` puts
    events into the supervisor's inbox."""

    def __init__(
        self, name: str, folder: StateFolder, listeners: Sequence[socket.socket], vacancy: Vacancy, device_class: str, post: Post,
        collect_s: float,
    ) -> None:  # fmt: skip
        self.name, self.folder, self.listeners, self.vacancy = name, folder, listeners, vacancy
        self.device_class, self.post, self.collect_s = device_class, post, collect_s
        self._jobs: queue.Queue[Command | None] = queue.Queue()
        self._live: Live | None = None
        self._trial: Trial | None = None
        self._starting: Worker | None = None
        self._collected = time.monotonic()
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"slot-{name}", daemon=True)

    @property
    def pid(self) -> int | None:
        """The process that takes the calls, if there is one."""
        return live.worker.pid if (live := self._live) else None

    def start(self) -> None:
        """Begin working."""
        self._thread.start()

    def do(self, command: Command) -> None:
        """Queue a command."""
        self._jobs.put(command)

    def stop(self) -> None:
        """Stop the worker, end the thread. A worker that is still being proved is not waited for."""
        self._leaving.set()
        self._jobs.put(None)
        if starting := self._starting:
            starting.stop()
        self._thread.join(30)

    def _work(self) -> None:
        while not self._leaving.is_set():
            try:
                job = self._jobs.get(timeout=WATCH_S)
            except queue.Empty:
                job = None
            try:
                if job is not None:
                    self._carry_out(job)
                elif not self._leaving.is_set():
                    self._watch()
            except Exception:  # a bug must not leave a slot that nobody watches
                say("internal", f"slot {self.name}: {traceback.format_exc()}", "error", slot=self.name)
        self._stop_live(LEAVE_S)

    def _carry_out(self, job: Command) -> None:
        match job:
            case Verify(target):
                self._attempt("verify", target, self._verify)
            case Install(target):
                self._attempt("install", target, self._install)
            case Try(target):
                self._attempt("trial", target, self._try)
            case Run(build):
                self._run(build)

    def _attempt(self, phase: str, target: Target, work: Callable[[Target], bool]) -> None:
        try:
            if work(target):
                self.post(Done(phase, target.order, tick()))
        except EdgeopsError as error:
            self.post(Failed(phase, target.order, tick(), error.reason, error.message))
        except Exception as error:
            self.post(Failed(phase, target.order, tick(), "internal", f"{type(error).__name__}: {error}"))
            raise

    def _verify(self, target: Target) -> bool:
        if target.build:
            builds.check(self.folder, target.build)
        return True

    def _install(self, target: Target) -> bool:
        if target.build:
            builds.runnable(self.folder, self.name, target.build, self.device_class)
            with refusals("the objects"):
                self.folder.files.sync(self.folder.objects)
        return True

    def _start(self, build: Build) -> Worker:
        """A worker that has passed its golden vectors; raises Unfit with the reason it did not."""
        self._starting = worker = Worker()
        try:
            worker.start(builds.runnable(self.folder, self.name, build, self.device_class), self.listeners)
            if self._leaving.is_set():
                worker.stop()
            outcome = worker.check()
        except OSError as error:
            worker.stop()
            raise Unfit("no-process", f"no worker process can be started: {error.strerror}") from None
        except BaseException:  # nobody else knows of this process
            worker.stop()
            raise
        finally:
            self._starting = None
        if not outcome.ok or self._leaving.is_set():
            worker.stop()
            raise Unfit(outcome.reason or "stopped", outcome.detail)
        return worker

    def _try(self, target: Target) -> bool:
        if target.build is None:
            return True
        previous = self._live.latency_us if self._live else 0
        self._take_over(target.build, self._start(target.build))
        self._trial = Trial(target, time.monotonic(), previous)
        return False

    def _take_over(self, build: Build, worker: Worker) -> None:
        """The new worker accepts before the old one stops, so no call finds nobody."""
        try:
            worker.serve()
        except BaseException:
            worker.stop()
            raise
        self.vacancy.take(self.name)
        tell_build(self.name, build, "takes the calls", "info", pid=worker.pid)
        old, self._live = self._live, Live(build, worker, time.monotonic())
        if old:
            self._retire(old, worker)

    def _retire(self, old: Live, successor: Worker | None, seconds: float = DRAIN_SECONDS) -> None:
        """Finish what the old worker has in hand, pass idle connections on, take its last counts, end it."""
        with contextlib.suppress(EdgeopsError):
            old.worker.drain(successor, seconds)
        self._collect_from(old)
        old.worker.stop()
        tell_build(self.name, old.build, "takes no more calls", "info", pid=old.worker.pid, reason=old.worker.reason)

    def _run(self, build: Build | None) -> None:
        self._trial = None
        if build is None:
            self.vacancy.leave(self.name)
            self._stop_live()
        elif not (self._live and self._live.build == build and self._live.worker.alive):
            try:
                self._run_patiently(build)
            except EdgeopsError as error:
                self._stop_live()
                if not self._leaving.is_set():
                    self._give_up(build, error.reason)
                return
        self.post(Ran(build))

    def _run_patiently(self, build: Build) -> None:
        for wait in (*AGAIN_S, None):
            try:
                builds.check(self.folder, build)
                self._take_over(build, self._start(build))
                return
            except Unfit as error:
                tell_build(self.name, build, f"does not run: {error}", "warn", "model", reason=error.reason)
                if wait is None or not _may_pass(error.reason) or self._leaving.wait(wait):
                    raise

    def _give_up(self, build: Build, reason: str) -> None:
        self.vacancy.leave(self.name)
        self.post(Ailing(build, reason) if _may_pass(reason) else Lost(build.release, tick(), reason))

    def _stop_live(self, seconds: float = DRAIN_SECONDS) -> None:
        live, self._live, self._trial = self._live, None, None
        if live:
            self._retire(live, None, seconds)

    def _watch(self) -> None:
        live, trial = self._live, self._trial
        if live is None:
            return
        if not live.worker.alive:
            self._died(live, trial)
            return
        due = time.monotonic() - self._collected >= self.collect_s
        if (trial or due) and not self._collect_from(live):
            self._died(live, trial)
            return
        if trial:
            self._judge(live, trial)

    def _judge(self, live: Live, trial: Trial) -> None:
        evidence = Evidence(live.calls, live.errors, live.latency_us, trial.previous_us)
        verdict = judge(trial.target, evidence, time.monotonic() - trial.began)
        if not verdict.over:
            return
        self._trial = None
        order = trial.target.order
        if verdict.reason:
            self.post(Failed("trial", order, tick(), verdict.reason, verdict.detail))
        else:
            self.post(Done("trial", order, tick(), unproven=verdict.unproven))

    def _died(self, live: Live, trial: Trial | None) -> None:
        """In trial a death is the verdict; a committed build is started again, a few times."""
        reason = live.worker.reason or "crashed"
        self._live = self._trial = None
        live.worker.stop()
        tell_build(self.name, live.build, f"has lost its worker: {reason}", "warn", pid=live.worker.pid, reason=reason)
        if trial:
            self.post(Failed("trial", trial.target.order, tick(), reason, "the worker died while taking calls"))
            return
        crashes = 1 if time.monotonic() - live.since > STABLE_S else live.crashes + 1
        self.post(Crashed(live.build, reason))
        if crashes > MAX_CRASHES:
            self._give_up(live.build, reason)
            return
        self._run(live.build)
        if self._live:
            self._live.crashes = crashes

    def _collect_from(self, live: Live) -> bool:
        """Pass on what the worker has counted; False when it does not answer any more."""
        try:
            counts = live.worker.collect()
        except EdgeopsError:
            return False
        self._collected = time.monotonic()
        try:
            numbers, window = counts["counters"], counts["window"]
            errors, calls = int(numbers.get("errors", 0)), int(numbers.get("calls", 0)) + int(numbers.get("errors", 0))
            latency = int(numbers.get("latency_us_p50", 0))
        except (KeyError, TypeError, ValueError, AttributeError):
            return False
        window = window if isinstance(window, bytes) and len(window) <= MOST_WINDOW else None
        self.post(Collected(live.build, window, max(0, calls - live.calls), max(0, errors - live.errors)))
        live.calls, live.errors = calls, errors
        live.latency_us = latency or live.latency_us
        return True


def _may_pass(reason: str) -> bool:
    return reason == "disk" or reason.startswith(PASSING)
