"""A child process on a leash: its log is read line by line, it stops when told or when our process ends."""

import contextlib
import logging
import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

_LOG = logging.getLogger("edgeops.broker")
_KEPT_LINES = 60


class Leashed:
    """Starts `command` with a pipe as its standard input (end of file = stop) and hands each output line to `on_line`."""

    def __init__(self, command: Sequence[str], on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._asking, self._heard, self._awaited = threading.Lock(), threading.Event(), ""
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self._reader = threading.Thread(target=self._read, name="edgeops-broker-log", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for raw in self._process.stdout:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            self._lines.append(line)
            _LOG.debug("%s", line)
            self._on_line(line)
            if self._awaited and self._awaited in line:
                self._heard.set()

    @property
    def pid(self) -> int:
        """The process id of the leashed child."""
        return self._process.pid

    def alive(self) -> bool:
        """True while the child runs."""
        return self._process.poll() is None

    def last_lines(self, count: int = 8) -> str:
        """The end of its log, for error messages; waits for a dead child's last words."""
        if not self.alive():
            self._reader.join(timeout=2.0)
        return "\n".join(list(self._lines)[-count:])

    def order(self, word: str) -> None:
        """Write one line to the child's standard input; a child that is gone ignores it."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(word.encode() + b"\n")
            self._process.stdin.flush()

    def ask(self, word: str, reply: str, patience_s: float, again_s: float) -> bool:
        """Give an order until a line with `reply` in it confirms it, every `again_s`; one order at a time."""
        with self._asking:
            self._heard.clear()
            self._awaited = reply
            until = time.monotonic() + patience_s
            while time.monotonic() < until and self.alive():
                self.order(word)
                if self._heard.wait(again_s):
                    return True
            return False

    def stop(self, patience_s: float = 8.0) -> None:
        """Let go of the leash and wait for the end, by force if it takes longer than `patience_s`; may be called again."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(timeout=2.0)
        if not self._reader.is_alive():
            self._process.stdout.close()
