"""The supervisor's side of an inference worker: start, check, serve, drain, collect, stop; every wait has a deadline.

A worker that hangs is killed, one that dies is noticed, and each ending has a name: load-timeout, call-timeout, memory,
crashed:SIGSEGV … A model may have taken it over: what it says is read within limits, and only what it was asked for. This module
never imports onnxruntime: nothing a model does can reach the supervisor.
"""

import os
import queue
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

from edgeops.wire.errors import Misuse, Unfit

from .frames import Channel
from .outcome import ProbeOutcome
from .process import Process, subtree
from .runnable import Runnable

START_SECONDS = 60.0
REPLY_SECONDS = 10.0
DRAIN_SECONDS = 10.0
MOST_FRAMES = 1000  # more than a check has golden cases and timed calls
MOST_PASSED = 256  # connections that a draining worker can have
MOST_COUNT = 2**40  # more than any worker can have answered, and thousands of such sums still fit into a message


class Worker:
    """One worker process for one runnable. `on_end(reason)` is called once, from another thread, when the process is gone."""

    def __init__(self, on_end: Callable[[str], None] | None = None) -> None:
        self._on_end = on_end
        self._frames: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._asking = threading.Lock()
        self._ended = threading.Event()
        self._reason = ""
        self._awaited = MOST_FRAMES
        self._passing = 0
        self._successor: Worker | None = None
        self._process: Process
        self._channel: Channel
        self._runnable: Runnable | None = None
        self._sockets: Sequence[socket.socket] = ()
        self.confinement: Mapping[str, bool] = {}
        self.unconfined: tuple[str, ...] = ()

    def start(self, runnable: Runnable, sockets: Sequence[socket.socket] = ()) -> None:
        """Start the process for `runnable`; it is handed the listening `sockets` when it serves, and they stay the caller's.

        Returns at once. Raises OSError when no process can be started.
        """
        if self._runnable is not None:
            raise Misuse("worker-used", "a worker runs one model once; make a new one")
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = Process(theirs, runnable)
        except BaseException:
            ours.close()  # a process that was started all the same ends with it
            raise
        self._channel = Channel(ours)
        self._runnable, self._sockets = runnable, sockets
        for duty in (self._hear, self._await):
            threading.Thread(target=duty, name=f"{duty.__name__[1:]}-{self.pid}", daemon=True).start()

    def check(self) -> ProbeOutcome:
        """Load the model and prove it (golden vectors, finite outputs, latency). A worker that fails is ended."""
        if self._runnable is None:
            raise Misuse("not-started", "start the worker before checking it")
        with self._asking:
            outcome = self._check(self._runnable)
            self._awaited = 0
        if not outcome.ok:
            self._kill(outcome.reason)
        return outcome

    def serve(self) -> None:
        """Let the worker accept connections; raises Unfit with the reason when it is gone."""
        self._ask({"do": "serve"}, REPLY_SECONDS, [sock.fileno() for sock in self._sockets])

    def drain(self, successor: "Worker | None" = None, seconds: float = DRAIN_SECONDS) -> int:
        """Stop accepting, finish what is in flight; idle connections go to `successor` (already serving) or are closed.

        Returns the number of requests cut off after `seconds`.
        """
        self._successor, self._passing = successor, MOST_PASSED if successor else 0
        reply = self._ask(
            {"do": "drain", "pass_over": successor is not None, "seconds": seconds}, seconds + REPLY_SECONDS
        )
        cut = reply.get("cut")
        return cut if _is_count(cut) else 0

    def collect(self) -> dict[str, Any]:
        """`counters` (calls, errors, errors_by_reason, latency_us_p50, latency_us_p99 …) and `window`: sketch bytes or None."""
        reply = self._ask({"do": "collect"}, REPLY_SECONDS)
        window = reply.get("window")
        try:
            counters = _counts(reply.get("counters"))
        except ValueError:
            raise self._nonsense() from None
        return {"counters": counters, "window": window if isinstance(window, bytes) else None}

    def stop(self) -> None:
        """End the process, gently if it answers, and wait until it is gone. Safe to call twice."""
        if self._runnable is None:
            return
        self._reason = self._reason or "stopped"
        if not self._ended.is_set():
            self._awaited = 1
            self._channel.send({"do": "stop"})
            if not self._ended.wait(2.0):
                self._process.kill()
        self._ended.wait(REPLY_SECONDS)

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._runnable is not None and not self._ended.is_set()

    @property
    def reason(self) -> str:
        """Why the process ended (kebab-case, or crashed:SIGNAL); empty while it lives."""
        return self._reason if self._ended.is_set() else ""

    @property
    def last_words(self) -> str:
        """How the process ended, its peak of memory, its limit and the end of what it wrote: at most 500 printable characters."""
        return self._process.words(self._reason or "running") if self._runnable is not None else ""

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def _check(self, runnable: Runnable) -> ProbeOutcome:
        call = runnable.limits.call_ms / 1000
        deadlines = {"start": START_SECONDS, "load": runnable.limits.load_ms / 1000, "call": 2 * call + 1.0}
        waiting = "start"
        for _ in range(MOST_FRAMES):
            try:
                frame = self._frames.get(timeout=deadlines[waiting])
            except queue.Empty:
                self._kill(f"{waiting}-timeout")
                limit = deadlines[waiting] if waiting != "call" else call
                return ProbeOutcome(False, f"{waiting}-timeout", f"no answer after {limit:g} s, the worker was killed")
            if frame is None:
                return ProbeOutcome(False, self._reason, self.last_words)
            if "reply" in frame:
                return self._outcome(frame["reply"])
            if waiting == "start":
                self._learn(frame)
                self._channel.send({"do": "load", "runnable": runnable.to_json()})
            waiting = "load" if waiting == "start" else "call"
        return self._outcome(None)

    def _learn(self, ready: Mapping[str, Any]) -> None:
        """How the worker is confined: its own words, from before it knew of a model, and the group we have put it in."""
        holds, missing = ready.get("holds"), ready.get("missing")
        ours = subtree()
        self.confinement = {
            **({str(name): held is True for name, held in holds.items()} if isinstance(holds, dict) else {}),
            "cgroup": self._process.cell is not None,
        }
        self.unconfined = (
            *(map(str, missing) if isinstance(missing, list) else ()), *([ours.message] if isinstance(ours, Unfit) else []),
        )  # fmt: skip

    def _outcome(self, reply: Any) -> ProbeOutcome:
        """What the worker says of itself; a worker that a model has taken over may say anything."""
        try:
            said = ProbeOutcome(**reply)
            return ProbeOutcome(
                said.ok is True, str(said.reason)[:64], str(said.detail)[:1000], _count(said.latency_us_p50),
                _count(said.latency_us_p99),
            )  # fmt: skip
        except (TypeError, ValueError):
            self._kill("bad-reply")
            return ProbeOutcome(False, "bad-reply", "the worker spoke nonsense and was killed")

    def _ask(self, message: dict[str, Any], seconds: float, fds: Sequence[int] = ()) -> dict[str, Any]:
        with self._asking:
            if not self.alive:
                raise Unfit(self._reason or "not-started", f"the worker is not running; {self.last_words}")
            self._awaited = 1
            self._channel.send(message, fds)
            try:
                frame = self._frames.get(timeout=seconds)
            except queue.Empty:
                self._kill("unresponsive")
                raise Unfit("unresponsive", f"the worker did not answer within {seconds:g} s and was killed") from None
            if frame is None:
                self._frames.put(None)
                raise Unfit(self._reason, f"the worker ended; {self.last_words}")
            reply = frame.get("reply")
            if not isinstance(reply, dict):
                raise self._nonsense()
            return reply

    def _nonsense(self) -> Unfit:
        self._kill("bad-reply")
        return Unfit("bad-reply", "the worker spoke nonsense and was killed")

    def _await(self) -> None:
        """What the worker may have started can hold its end of the channel open: the end of the process is the end."""
        self._process.wait()
        self._channel.shut()

    def _hear(self) -> None:
        while (received := self._channel.receive()) is not None:
            frame, fds = received
            allowed = self._take(frame, fds)
            for fd in fds:
                os.close(fd)
            if not allowed:
                break
        if received is not None or self._channel.broken:
            self._reason = self._reason or "bad-reply"
            self._process.kill()
        self._channel.shut()
        self._reason = self._process.reap(self._reason)
        self._channel.close()
        self._ended.set()
        self._frames.put(None)
        if self._on_end is not None:
            self._on_end(self._reason)

    def _take(self, frame: dict[str, Any], fds: list[int]) -> bool:
        """Take one frame; False when nothing called for it or the worker has to end."""
        if frame.get("event") == "stuck":
            self._reason = self._reason or "call-timeout"
            return False
        if frame.get("event") == "connection":
            self._passing -= 1
            if self._passing < 0 or self._successor is None:
                return False
            self._successor._channel.send({"do": "adopt"}, fds)
            return True
        if self._awaited <= 0:
            return False
        first, self._awaited = self._awaited == MOST_FRAMES, 0 if "reply" in frame else self._awaited - 1
        self._frames.put(frame if first or "reply" in frame else {})
        return True

    def _kill(self, reason: str) -> None:
        self._reason = self._reason or reason
        self._process.kill()
        self._ended.wait(REPLY_SECONDS)


def _count(said: Any) -> int:
    """A number that a record and a message can hold; raises ValueError for anything else."""
    if not _is_count(said):
        raise ValueError("not a count")
    return int(said)


def _counts(said: Any) -> dict[str, Any]:
    """Counters by name, one level deep; what is no number is left out. Raises ValueError for one that nobody can have counted."""
    if not isinstance(said, dict):
        return {}
    found: dict[str, Any] = {}
    for name, value in list(said.items())[:32]:
        if isinstance(value, dict):
            found[str(name)[:64]] = {str(key)[:64]: _count(one) for key, one in list(value.items())[:32] if _is_number(one)}
        elif _is_number(value):
            found[str(name)[:64]] = _count(value)
    return found


def _is_number(said: Any) -> bool:
    return isinstance(said, int) and said >= 0


def _is_count(said: Any) -> TypeGuard[int]:
    return isinstance(said, int) and 0 <= said <= MOST_COUNT
