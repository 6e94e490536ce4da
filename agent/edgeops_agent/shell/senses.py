"""What is known of the device now, for conditions: ready-made facts, what its owner states, what hour of the week it is.

Looking may take long (a driver that does not answer, a program that hangs), so it is done in a thread of its own; whoever asks gets
what was seen last, at once, and nothing that is stale.
"""

import contextlib
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeops.wire.conditions import MINUTE, Fact
from edgeops.wire.errors import Misuse

from . import dropins
from .gauges import gauges
from .journal import Sparing, say
from .stated import Stated, StatedFacts

EAGER_S, CALM_S = 10.0, 60.0
STALE_S = 180.0
"""Older than this nothing is believed: looking hangs."""
NMCLI_S = 5.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look found; it began at a monotonic second."""

    at: float
    ready_made: Mapping[str, Fact]
    stated: tuple[Stated, ...] = ()


class Senses:
    """`root` is the agent's folder, `believed` the time in Unix seconds, None while the clock is not sure.

    A look is taken every EAGER_S while `eager`, else every CALM_S. Safe for several threads.
    """

    def __init__(
        self, root: Path, believed: Callable[[], int | None], folders: Sequence[Path] | None = None, sys: Path = Path("/sys"),
        proc: Path = Path("/proc"), nmcli: str | None = None, now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time, log: Callable[[str, str, str], object] = say,
    ) -> None:  # fmt: skip
        self._root, self._believed, self._sys, self._proc, self._now = root, believed, sys, proc, now
        self._nmcli = nmcli or shutil.which("nmcli") or ""
        self._stated = StatedFacts(folders_of(root, "facts.d") if folders is None else folders, now, wall, log)
        self._log, self._seen, self._wait = Sparing(), Seen(float("-inf"), {}), CALM_S
        self._wake, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="senses", daemon=True)

    def start(self) -> None:
        """Begin looking."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more. A look that is under way is not waited for."""
        self._over.set()
        self._wake.set()

    def latest(self) -> Mapping[str, Fact]:
        """What was seen last and still holds; never waits."""
        seen, now = self._seen, self._now()
        facts: dict[str, Fact] = {}
        if now - seen.at <= STALE_S:
            facts.update(seen.ready_made)
            for one in seen.stated:
                if now < one.until:
                    facts.update(one.facts)
        minute = minute_of_week(self._believed())
        return facts if minute is None or MINUTE in facts else {**facts, MINUTE: minute}

    def look_now(self) -> None:
        """Look as soon as possible; returns at once."""
        self._wake.set()

    def eager(self, waiting: bool) -> None:
        """Whether somebody waits for a condition."""
        wait = EAGER_S if waiting else CALM_S
        if wait < self._wait:
            self._wake.set()
        self._wait = wait

    def look(self) -> None:
        """Look, in this thread."""
        began = self._now()
        ready_made = gauges(self._root, self._sys, self._proc, self._ask)
        self._seen = Seen(began, ready_made, self._stated.read())

    def _ask(self, words: list[str]) -> str:
        if not self._nmcli:
            return ""
        with contextlib.suppress(Misuse):
            ended = dropins.run([self._nmcli, *words], seconds=NMCLI_S)
            return ended.output.decode(errors="replace") if ended.code == 0 else ""
        return ""

    def _work(self) -> None:
        while not self._over.is_set():
            self._wake.clear()
            try:
                time.tzset()  # somebody may have moved the device
                self.look()
            except Exception:  # facts that are not seen any more go stale; an agent that sees nothing must still say why
                self._log.say("internal", f"facts: {traceback.format_exc()}", "error")
            self._wake.wait(self._wait)


def folders_of(root: Path, name: str) -> tuple[Path, ...]:
    """Where a device's owner leaves such files, in rising weight: for the whole machine, for this agent."""
    return dropins.ETC / name, root / name


def minute_of_week(believed: int | None) -> int | None:
    """Minutes since Monday 00:00, local time; None while the time is not sure."""
    if believed is None:
        return None
    local = time.localtime(believed)
    return local.tm_wday * 1440 + local.tm_hour * 60 + local.tm_min
