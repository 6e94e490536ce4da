"""Saying what happens: `say(event, text, **fields)`, from any thread. Lines go to standard output and into the agent's log.

A log that cannot be written must not stop a device: a line that somebody does not take at once (a full disk, a closed or a stopped
reader) is dropped, and the next one that is taken says how many were.
"""

import contextlib
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace

from .logline import MOST_TEXT, Line, Value

QUIET_S = 10.0
MOST_BYTES = 4000
"""Of a line on standard output: less than what `select` promises to take without waiting."""
LEAST_TEXT = 300
MOST_EARLY = 100
Take = Callable[[Line], bool]
STYLES: Mapping[str, Callable[[Line], str]] = {
    "json": Line.json, "journald": Line.journald, "clock": lambda line: line.shown("%H:%M:%S"),
    "dated": lambda line: line.shown("%Y-%m-%d %H:%M:%S"),
}  # fmt: skip


def style_for(wanted: str) -> str:
    """How standard output is best written: `wanted` is json, text or auto (text for people and systemd's journal, else JSON)."""
    if wanted != "json" and _is_journal():
        return "journald"
    if sys.stdout.isatty():
        return "json" if wanted == "json" else "clock"
    return "dated" if wanted == "text" else "json"


def _is_journal() -> bool:
    """Whether systemd reads our standard output; it says so by the number of the file."""
    try:
        status = os.fstat(sys.stdout.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def show_as(style: str) -> Take:
    """Writes lines to standard output; a reader who has stopped reading is not waited for."""
    write = STYLES[style]

    def take(line: Line) -> bool:
        with contextlib.suppress(OSError, ValueError):
            if _would_wait():
                return False
            sys.stdout.write(f"{_fitting(write, line)}\n")
            sys.stdout.flush()
            return True
        return False

    return take


def _fitting(write: Callable[[Line], str], line: Line) -> str:
    """The line in at most MOST_BYTES, without what begins a long text, in the end without its fields."""
    for most in (MOST_TEXT, MOST_TEXT // 3, LEAST_TEXT):
        shown = write(replace(line, text=line.text[-most:]))
        if len(shown.encode(errors="replace")) <= MOST_BYTES:
            return shown
    return write(replace(line, text=line.text[-LEAST_TEXT:], fields={}))


def _would_wait() -> bool:
    """Whether a line might not fit into what the reader has left to read."""
    try:
        return not select.select([], [sys.stdout], [], 0)[1]
    except (OSError, ValueError):
        return False


class Journal:
    """All who take lines; what one of them misses does not matter to the others."""

    def __init__(self, first: Take) -> None:
        self._takers: dict[Take, int] = {first: 0}
        self._early: deque[Line] = deque(maxlen=MOST_EARLY)
        self._writing = threading.Lock()

    def add(self, take: Take) -> None:
        """Give lines to this one too, beginning with those that came before it."""
        with self._writing:
            self._takers[take] = 0
            for line in self._early:
                self._give(take, line)

    def put(self, line: Line) -> None:
        """Hand a line to all; never raises, never waits."""
        with self._writing:
            self._early.append(line)
            for take in self._takers:
                self._give(take, line)

    def _give(self, take: Take, line: Line) -> None:
        missed = self._takers[take]
        text = f"{missed} lines before this one could not be written"
        if missed and take(Line(line.at, "warn", "lost", text, {"lines": missed})):
            missed = 0
        self._takers[take] = missed + (1 if missed or not take(line) else 0)


_journal = Journal(show_as("dated"))


def begin(journal: Journal) -> None:
    """Lines of this process go to `journal` from now on."""
    global _journal
    _journal = journal


def put(line: Line) -> None:
    """Hand over a line that is made already."""
    _journal.put(line)


def say(event: str, text: str, level: str = "info", **fields: Value) -> None:
    """One line: `event` is a word of EVENTS, `text` for people, `fields` say the same for programs."""
    put(Line(time.time(), level, event, text, fields))


class Sparing:
    """Lines that others can provoke: each kind at most once in ten seconds, with how many were left out."""

    def __init__(self, write: Callable[[Line], object] = put, now: Callable[[], float] = time.monotonic) -> None:
        self._write, self._now = write, now
        self._last: dict[tuple[str, str], tuple[float, int]] = {}

    def say(self, event: str, text: str, level: str = "warn", kind: str = "", **fields: Value) -> None:
        """As `say`, unless this kind of event was written a moment ago. `kind` must come from a small set."""
        at, left_out = self._last.get((event, kind), (float("-inf"), 0))
        if self._now() - at < QUIET_S:
            self._last[event, kind] = (at, left_out + 1)
            return
        line = Line(time.time(), level, event, text, fields)
        more = {**fields, "left_out": left_out}
        self._write(replace(line, text=f"{text} (and {left_out} more like it)", fields=more) if left_out else line)
        self._last[event, kind] = (self._now(), 0)
