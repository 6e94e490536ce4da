"""The process of one worker as the supervisor sees it: started from the one thread that lives on, bounded in what it may say, and
reaped with its signal, its peak of memory and its last words."""

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgeops.wire.errors import Unfit

from .cgroup import Cell, Subtree, take_over
from .outcome import STUCK
from .runnable import Runnable

LEAVE_SECONDS = 1.0
MOST_WORDS = 500
_TAIL, _PER_PAUSE, _PAUSE_SECONDS = 4096, 64 << 10, 0.5  # a worker that fills its stderr costs us no more than this
_NO_MEMORY = ("bad_alloc", "MemoryError", "out of memory")
# Linux ties "die with the parent" to the thread that started the child: this one lives as long as the supervisor
_LAUNCHER = ThreadPoolExecutor(1, thread_name_prefix="launch-workers")


@functools.cache
def subtree() -> Subtree | Unfit:
    """Our part of the control groups, or why there is none; found out once."""
    try:
        return take_over()
    except Unfit as error:
        return error


class Process:
    """A worker's process, from start to end. `kill` and `words` are safe in any thread, `reap` belongs to one."""

    def __init__(self, control: socket.socket, runnable: Runnable) -> None:
        self._runnable = runnable
        self._ours = subtree()
        self._popen = _LAUNCHER.submit(_launch, control.fileno(), runnable).result()
        self.pid = self._popen.pid
        self.cell = self._enter()
        self._tail = b""
        self._ending = threading.Lock()
        self._peak_kib = 0
        self._killed = False
        self._listening = threading.Thread(target=self._listen, name=f"tail-{self.pid}", daemon=True)
        self._listening.start()

    def kill(self) -> None:
        """End it at once; nothing when it is gone."""
        with self._ending:
            if self._popen.returncode is None:
                self._killed = True
                os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Until it has ended, or was reaped already."""
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)  # it keeps its number: nobody else has it while we kill

    def reap(self, reason: str = "") -> str:
        """Wait until it is gone, killing it when it does not go by itself; `reason`, else what is found: memory, crashed:SIGSEGV"""
        late = threading.Timer(LEAVE_SECONDS, self.kill)
        late.daemon = True
        late.start()
        self.wait()
        late.cancel()
        with self._ending:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)  # what it may have started
            _, status, used = os.wait4(self.pid, 0)
            self._popen.returncode = os.waitstatus_to_exitcode(status)
        self._peak_kib = used.ru_maxrss
        self._listening.join(1.0)
        starved = self.cell is not None and self.cell.out_of_memory
        if self.cell is not None:
            self.cell.end()
        if reason:
            return reason
        if starved or any(word.encode() in self._tail for word in _NO_MEMORY):
            return "memory"
        return "unresponsive" if self._killed else self._how()

    def words(self, reason: str) -> str:
        """Why and how it ended, at most MOST_WORDS printable characters: what a person needs who cannot come to the device."""
        limit = self._runnable.limits.memory_bytes >> 20
        said = "".join(chr(byte) if 32 <= byte < 127 else " " for byte in self._tail)
        text = f"{reason}; {self._how()}, peak memory {self._peak_kib >> 10} MiB, limit {limit} MiB beyond the runtime's"
        said = " ".join(said.split())[-(MOST_WORDS - len(text) - 10) :]
        return f"{text}; said: {said}"[:MOST_WORDS] if said else text[:MOST_WORDS]

    def _how(self) -> str:
        code = self._popen.returncode
        if code is None:
            return "running"
        if code == STUCK:
            return "call-timeout"
        with contextlib.suppress(ValueError):
            return f"crashed:{signal.Signals(-code).name}" if code < 0 else f"crashed:exit-{code}"
        return f"crashed:signal-{-code}"

    def _enter(self) -> Cell | None:
        """Before it hears of a model."""
        if isinstance(self._ours, Unfit):
            return None
        try:
            cell = self._ours.cell(str(self.pid), self._runnable.limits.memory_bytes)
        except Unfit:
            return None
        if cell.admit(self.pid):
            return cell
        cell.end()
        return None

    def _listen(self) -> None:
        stream = self._popen.stderr
        if stream is None:
            return
        heard = 0
        with stream, contextlib.suppress(OSError):
            while chunk := os.read(stream.fileno(), _TAIL):
                self._tail = (self._tail + chunk)[-_TAIL:]
                heard += len(chunk)
                if heard >= _PER_PAUSE and self._popen.returncode is None:
                    heard = 0
                    threading.Event().wait(_PAUSE_SECONDS)


def _launch(control: int, runnable: Runnable) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-P", "-m", "edgeops_agent.shell.worker"]
    command += ["--control", str(control), "--parent", str(os.getpid()), "--memory", str(runnable.limits.memory_bytes)]
    for path in _files(runnable):
        command += ["--read", str(path)]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        bufsize=0,
        process_group=0,
        pass_fds=(control,),
        env={**os.environ, "MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )


def _files(runnable: Runnable) -> list[Path]:
    paths = (runnable.skeleton, runnable.blobs, runnable.golden, runnable.reference)
    return [path.resolve() for path in paths if path is not None]
