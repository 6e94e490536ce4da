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
from pathlib import Path

from edgeops.wire.errors import EdgeopsError, Unfit

from ..core.slot import Build, Command, Done, Failed, Install, Lost, Run, Target, Try, Verify
from . import builds
from .chronicle import tell_build
from .clock import tick
from .disk import StateFolder, refusals
from .hooks import Hooks
from .journal import say
from .lifetime import Histories, Live, last_words
from .news import Ailing, Crashed, Fallen, Post, Ran
from .revival import may_pass
from .senses import folders_of
from .starting import Proving, named
from .trying import Trial, before, environment
from .vacancy import Vacancy
from .workers import DRAIN_SECONDS, Worker

WATCH_S = 0.2
AGAIN_S = (1.0, 2.0, 4.0)
LEAVE_S = 2.0


class SlotRunner:
    """One slot's hands. `listeners` are the bound sockets workers accept on, `vacancy` answers there while none does; `post` puts
    events into the supervisor's inbox."""

    def __init__(
        self, name: str, folder: StateFolder, listeners: Sequence[socket.socket], vacancy: Vacancy, device_class: str, post: Post,
        collect_s: float, now: Callable[[], float] = time.monotonic, hire: Callable[[], Worker] = Worker,
        checks: Sequence[Path] | None = None,
    ) -> None:  # fmt: skip
        self.name, self.folder, self.listeners, self.vacancy = name, folder, listeners, vacancy
        self.device_class, self.post, self.collect_s, self._now = device_class, post, collect_s, now
        self._checks = folders_of(folder.root, "health.d") if checks is None else checks
        self._jobs: queue.Queue[Command | Build | None] = queue.Queue()
        self._live: Live | None = None
        self._trial: Trial | None = None
        self._passed = False
        self._histories = Histories()
        self._collected = now()
        self._leaving = threading.Event()
        self._proving = Proving(hire, lambda build: builds.runnable(folder, name, build, device_class), listeners, self._leaving)
        self._thread = threading.Thread(target=self._work, name=f"slot-{name}", daemon=True)

    @property
    def worker(self) -> Worker | None:
        """The one that takes the calls, if there is one."""
        return live.worker if (live := self._live) else None

    def start(self) -> None:
        """Begin working."""
        self._thread.start()

    def do(self, command: Command | Build) -> None:
        """Queue a command. A build: if it takes the calls, let a new worker of it take over."""
        self._jobs.put(command)

    def stop(self) -> None:
        """Stop the worker, end the thread. A worker that is still being proved is not waited for."""
        self._leaving.set()
        self._jobs.put(None)
        self._proving.stop()
        self._thread.join(30)

    def _work(self) -> None:
        while not self._leaving.is_set():
            try:
                self.turn(WATCH_S)
            except Exception:  # a bug must not leave a slot that nobody watches
                say("internal", f"slot {self.name}: {traceback.format_exc()}", "error", slot=self.name)
        self._stop_live(LEAVE_S)

    def turn(self, patience_s: float) -> None:
        """Carry out the next command; where none comes for `patience_s` seconds, look after what runs."""
        try:
            job = self._jobs.get(timeout=patience_s)
        except queue.Empty:
            job = None
        if job is not None:
            self._carry_out(job)
        elif not self._leaving.is_set():
            self._watch()

    def _carry_out(self, job: Command | Build) -> None:
        match job:
            case Build():
                self._renew(job)
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
            if phase != "trial" or not self._overtaken():
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

    def _try(self, target: Target) -> bool:
        if target.build is None:
            return True
        if self._live and self._live.build != target.build:
            self._passed = False  # it is committed, or no other build would be tried
        worker = self._proving.proved(target.build, self._meanwhile)
        old, began, earlier = self._live, self._now(), self._trial
        self._forget_trial()
        self._take_over(target.build, worker)  # with that the old worker's last counts are in
        hooks = Hooks(self._checks, environment(self.name, target, self.listeners)).begin()
        self._trial = Trial(target, self._now(), before(target, began, old, earlier), hooks)
        return False

    def _meanwhile(self, candidate: Worker) -> None:
        """While a candidate loads: what takes the calls is looked after, and the order to run something is the candidate's end."""
        if self._overtaken():
            candidate.stop()
        elif self._trial is None:
            self._watch()

    def _overtaken(self) -> bool:
        """Whether something is to be run: then what becomes of a trial says nothing of its candidate. Whoever wants it says so."""
        with self._jobs.mutex:
            return any(isinstance(job, Run) for job in self._jobs.queue)

    def _forget_trial(self) -> None:
        if self._trial:
            self._trial.hooks.end()
        self._trial, self._passed = None, False

    def _take_over(self, build: Build, worker: Worker) -> None:
        """The new worker accepts before the old one stops, so no call finds nobody."""
        try:
            worker.serve()
        except BaseException:
            worker.stop()
            raise
        self.vacancy.take(self.name)
        tell_build(self.name, build, "takes the calls", "info", pid=worker.pid)
        old, self._live = self._live, Live(build, worker, self._now(), self._histories.of(build))
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
        if self._ensure(build):
            self.post(Ran(build))

    def _ensure(self, build: Build | None) -> bool:
        """Whether `build` now takes the calls; when it cannot be made to, that has been said."""
        self._forget_trial()
        if build is None:
            self.vacancy.leave(self.name)
            self._stop_live()
        elif not (self._live and self._live.build == build and self._live.worker.alive):
            try:
                self._run_patiently(build)
            except EdgeopsError as error:
                try:
                    self._stop_live()
                finally:
                    if not self._leaving.is_set():
                        self._give_up(build, error.reason)
                return False
        return True

    def _run_patiently(self, build: Build) -> None:
        for wait in (*AGAIN_S, None):
            try:
                builds.check(self.folder, build)
                self._take_over(build, self._proving.proved(build))
                return
            except Exception as error:  # a kernel without a thread to spare must not leave a slot that nobody watches
                why = named(error)
                tell_build(self.name, build, f"does not run: {why}", "warn", "model", reason=why.reason)
                if wait is None or not isinstance(why, Unfit) or not may_pass(why.reason) or self._leaving.wait(wait):
                    raise why from error

    def _renew(self, build: Build) -> None:
        """What runs goes on when the new worker does not come up: it is no worse than before."""
        if self._live and self._live.build == build and not self._trial:
            with contextlib.suppress(EdgeopsError):
                self._take_over(build, self._proving.proved(build))

    def _give_up(self, build: Build, reason: str) -> None:
        self.post(Ailing(build, reason) if may_pass(reason) else Lost(build.release, tick(), reason))
        self.vacancy.leave(self.name)

    def _stop_live(self, seconds: float = DRAIN_SECONDS) -> None:
        live, self._live = self._live, None
        self._forget_trial()
        if live:
            self._retire(live, None, seconds)

    def _watch(self) -> None:
        live, trial = self._live, self._trial
        if live is None:
            return
        due = self._now() - self._collected >= self.collect_s
        if not live.worker.alive or ((trial or due) and not self._collect_from(live)):
            self._died(live)
        elif trial:
            self._judge(live, trial)

    def _judge(self, live: Live, trial: Trial) -> None:
        verdict, target = trial.verdict(live, self._now()), trial.target
        if not verdict.over:
            return
        self._forget_trial()
        tell_build(self.name, live.build, f"on trial: {verdict.reason or 'passed'}; {verdict.detail}", "info", "update")
        if verdict.reason:
            self.post(Failed("trial", target.order, tick(), verdict.reason, verdict.detail))
        else:
            self._passed = True
            self.post(Done("trial", target.order, tick(), unproven=verdict.unproven))

    def _died(self, live: Live) -> None:
        """In trial a death is the verdict; a committed build is started again, a few times.

        What has passed its trial may be committed or wait for that: it has failed if it waits. Who knows says what is to run.
        """
        trial, passed, reason = self._trial, self._passed, live.worker.reason or "crashed"
        self._forget_trial()
        self._live = None
        live.worker.stop()
        words, build = last_words(live.worker), live.build
        tell_build(self.name, build, f"has lost its worker: {reason}; {words}", "warn", pid=live.worker.pid, reason=reason)
        if trial:
            self.post(Failed("trial", trial.target.order, tick(), reason, f"the worker died while taking calls; {words}"))
            return
        borne = live.history.deaths.borne(self._now(), self._now() - live.since)
        if passed:
            self.post(Fallen(build, reason, words))
            return
        self.post(Crashed(build, reason, words))
        if borne:
            self._ensure(build)
        else:
            self._give_up(build, reason)

    def _collect_from(self, live: Live) -> bool:
        """Pass on what the worker has counted; False when it does not answer any more."""
        try:
            news = live.count(live.worker.collect(), self._now())
        except EdgeopsError:
            return False
        self._collected = self._now()
        if news:
            self.post(news)
        return news is not None
