"""Starting a worker and proving its model. That may take an hour, so whoever waits for it can look after other things meanwhile."""

import socket
import threading
from collections.abc import Callable, Sequence

from edgeops.wire.errors import EdgeopsError, Unfit

from ..core.slot import Build
from .outcome import ProbeOutcome
from .runnable import Runnable
from .workers import Worker

SLICE_S = 0.2


class Proving:
    """The workers of one slot that take no calls yet. `prepare` lays a build out for them; nothing starts once `leaving` is set."""

    def __init__(
        self, hire: Callable[[], Worker], prepare: Callable[[Build], Runnable], listeners: Sequence[socket.socket],
        leaving: threading.Event,
    ) -> None:  # fmt: skip
        self._hire, self._prepare, self._listeners, self._leaving = hire, prepare, listeners, leaving
        self._workers: list[Worker] = []

    def proved(self, build: Build, meanwhile: Callable[[Worker], None] = lambda worker: None) -> Worker:
        """A worker that has passed its golden vectors; `meanwhile` is called as it loads. Raises Unfit with the reason if not."""
        worker = self._hire()
        self._workers.append(worker)
        try:
            worker.start(self._prepare(build), self._listeners)
            if self._leaving.is_set():
                worker.stop()
            outcome = _beside(worker.check, lambda: meanwhile(worker))
        except BaseException as error:  # nobody else knows of this process
            worker.stop()
            if isinstance(error, Exception):
                raise named(error) from error
            raise
        finally:
            self._workers.remove(worker)
        if not outcome.ok or self._leaving.is_set():
            worker.stop()
            raise Unfit(outcome.reason or "stopped", outcome.detail)
        return worker

    def stop(self) -> None:
        """End those that are being proved."""
        for worker in list(self._workers):
            worker.stop()


def named(error: Exception) -> EdgeopsError:
    """The error itself, or by the name of what may pass: no thread or no memory is left now, a number does not fit …"""
    if isinstance(error, EdgeopsError):
        return error
    why = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    return Unfit("no-process", f"no worker process can be started: {why}")


def _beside(work: Callable[[], ProbeOutcome], meanwhile: Callable[[], None]) -> ProbeOutcome:
    """What `work` gives or raises; it is done in a thread of its own, and `meanwhile` is called several times a second."""
    ended, given, raised = threading.Event(), list[ProbeOutcome](), list[BaseException]()

    def do() -> None:
        try:
            given.append(work())
        except BaseException as error:
            raised.append(error)
        ended.set()

    threading.Thread(target=do, name="proving", daemon=True).start()
    while not ended.wait(SLICE_S):
        meanwhile()
    if raised:
        raise raised[0]
    return given[0]
