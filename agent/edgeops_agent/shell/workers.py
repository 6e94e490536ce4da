"""The supervisor's side of an inference worker: start, check, serve, drain, collect, stop; every wait has a deadline.

A worker that hangs is killed, one that dies is noticed, and each ending has a name: load-timeout, call-timeout, memory,
crashed:SIGSEGV … This module never imports onnxruntime: nothing a model does can reach the supervisor.
"""

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from edgeops.wire.errors import Misuse, Unfit

from .frames import Channel
from .outcome import ProbeOutcome
from .runnable import Runnable

START_SECONDS = 60.0
REPLY_SECONDS = 10.0
DRAIN_SECONDS = 10.0
MOST_REPLIES = 1000  # more than a check has golden cases and timed calls
_NO_MEMORY = ("bad_alloc", "MemoryError", "out of memory")
# Linux ties "die with the parent" to the thread that started the child: this one lives as long as the supervisor
_LAUNCHER = ThreadPoolExecutor(1, thread_name_prefix="launch-workers")


class Worker:
    """One worker process for one runnable. `on_end(reason)` is called once, from another thread, when the process is gone."""

    def __init__(self, on_end: Callable[[str], None] | None = None) -> None:
        self._on_end = on_end
        self._replies: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._asking = threading.Lock()
        self._ended = threading.Event()
        self._tail: deque[bytes] = deque(maxlen=40)
        self._reason = ""
        self._successor: Worker | None = None
        self._process: subprocess.Popen[bytes]
        self._channel: Channel
        self._tail_thread: threading.Thread
        self._runnable: Runnable | None = None

    def start(self, runnable: Runnable, sockets: Sequence[socket.socket] = ()) -> None:
        """Start the process for `runnable`; it inherits the listening `sockets`, which stay the caller's. Returns at once."""
        if self._runnable is not None:
            raise Misuse("worker-used", "a worker runs one model once; make a new one")
        ours, theirs = socket.socketpair()
        with theirs:
            listeners = [sock.fileno() for sock in sockets]
            self._process = _LAUNCHER.submit(_launch, theirs.fileno(), listeners, _files(runnable)).result()
        self._channel = Channel(ours)
        self._runnable = runnable
        self._tail_thread = threading.Thread(target=self._keep_tail, name=f"tail-{self.pid}", daemon=True)
        self._tail_thread.start()
        threading.Thread(target=self._hear, name=f"hear-{self.pid}", daemon=True).start()

    def check(self) -> ProbeOutcome:
        """Load the model and prove it (golden vectors, finite outputs, latency). A worker that fails is ended."""
        if self._runnable is None:
            raise Misuse("not-started", "start the worker before checking it")
        with self._asking:
            outcome = self._check(self._runnable)
        if not outcome.ok:
            self._kill(outcome.reason)
        return outcome

    def serve(self) -> None:
        """Let the worker accept connections; raises Unfit with the reason when it is gone."""
        self._ask({"do": "serve"}, REPLY_SECONDS)

    def drain(self, successor: "Worker | None" = None, seconds: float = DRAIN_SECONDS) -> int:
        """Stop accepting, finish what is in flight; idle connections go to `successor` (already serving) or are closed.

        Returns the number of requests cut off after `seconds`.
        """
        self._successor = successor
        reply = self._ask(
            {"do": "drain", "pass_over": successor is not None, "seconds": seconds}, seconds + REPLY_SECONDS
        )
        return int(reply["cut"])

    def collect(self) -> dict[str, Any]:
        """`counters` (calls, errors, errors_by_reason, latency_us_p50, latency_us_p99 …) and `window`: sketch bytes or None."""
        return self._ask({"do": "collect"}, REPLY_SECONDS)

    def stop(self) -> None:
        """End the process, gently if it answers, and wait until it is gone. Safe to call twice."""
        if self._runnable is None:
            return
        self._reason = self._reason or "stopped"
        if not self._ended.is_set():
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
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def _check(self, runnable: Runnable) -> ProbeOutcome:
        call = runnable.limits.call_ms / 1000
        deadlines = {"start": START_SECONDS, "load": runnable.limits.load_ms / 1000, "call": 2 * call + 1.0}
        waiting = "start"
        for _ in range(MOST_REPLIES):
            try:
                frame = self._replies.get(timeout=deadlines[waiting])
            except queue.Empty:
                self._kill(f"{waiting}-timeout")
                limit = deadlines[waiting] if waiting != "call" else call
                return ProbeOutcome(False, f"{waiting}-timeout", f"no answer after {limit:g} s, the worker was killed")
            if frame is None:
                return ProbeOutcome(False, self._reason, self._last_words())
            if "reply" in frame:
                return self._outcome(frame["reply"])
            waiting = "load" if frame.get("phase") == "ready" else "call"
            if waiting == "load":
                self._channel.send({"do": "load", "runnable": runnable.to_json()})
        return self._outcome(None)

    def _outcome(self, reply: Any) -> ProbeOutcome:
        """What the worker says of itself; a worker that a model has taken over may say anything."""
        try:
            said = ProbeOutcome(**reply)
            return ProbeOutcome(
                said.ok is True, str(said.reason)[:64], str(said.detail)[:1000], int(said.latency_us_p50), int(said.latency_us_p99)
            )
        except (TypeError, ValueError):
            self._kill("bad-reply")
            return ProbeOutcome(False, "bad-reply", "the worker spoke nonsense and was killed")

    def _ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        with self._asking:
            if not self.alive:
                raise Unfit(self._reason or "not-started", f"the worker is not running; {self._last_words()}")
            self._channel.send(message)
            try:
                frame = self._replies.get(timeout=seconds)
            except queue.Empty:
                self._kill("unresponsive")
                raise Unfit("unresponsive", f"the worker did not answer within {seconds:g} s and was killed") from None
            if frame is None:
                self._replies.put(None)
                raise Unfit(self._reason, f"the worker ended: {self._reason}; {self._last_words()}")
            reply = frame.get("reply")
            if not isinstance(reply, dict):
                self._kill("bad-reply")
                raise Unfit("bad-reply", "the worker spoke nonsense and was killed")
            return reply

    def _hear(self) -> None:
        while (received := self._channel.receive()) is not None:
            frame, fds = received
            if frame.get("event") == "stuck":
                self._reason = self._reason or "call-timeout"
            elif frame.get("event") == "connection":
                if self._successor is not None:
                    self._successor._channel.send({"do": "adopt"}, fds)
                for fd in fds:
                    os.close(fd)
            elif self._replies.qsize() < MOST_REPLIES:
                self._replies.put(frame)
            else:
                self._reason = self._reason or "bad-reply"
                break
        self._channel.shut()
        try:
            code = self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._tail_thread.join(1.0)
        self._reason = self._reason or self._reason_of(code)
        self._channel.close()
        self._ended.set()
        self._replies.put(None)
        if self._on_end is not None:
            self._on_end(self._reason)

    def _reason_of(self, code: int) -> str:
        if any(word in self._last_words() for word in _NO_MEMORY):
            return "memory"
        return f"crashed:{signal.Signals(-code).name}" if code < 0 else f"crashed:exit-{code}"

    def _kill(self, reason: str) -> None:
        self._reason = self._reason or reason
        self._process.kill()
        self._ended.wait(REPLY_SECONDS)

    def _keep_tail(self) -> None:
        stream = self._process.stderr
        if stream is not None:
            with stream:
                self._tail.extend(iter(lambda: stream.readline(4096), b""))

    def _last_words(self) -> str:
        return b"".join(list(self._tail)).decode(errors="replace")[-1000:].strip()


def _files(runnable: Runnable) -> list[Path]:
    paths = (runnable.skeleton, runnable.blobs, runnable.golden, runnable.reference)
    return [path.resolve() for path in paths if path is not None]


def _launch(control: int, listeners: list[int], readable: list[Path]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-P", "-m", "edgeops_agent.shell.worker"]
    command += ["--control", str(control), "--parent", str(os.getpid())]
    for fd in listeners:
        command += ["--listen", str(fd)]
    for path in readable:
        command += ["--read", str(path)]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=(control, *listeners),
        env={**os.environ, "MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
