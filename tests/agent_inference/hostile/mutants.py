"""Seeded bugs of this room, each a line changed in a copy of the agent, and a hostile model that gets through then."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.agent.real.site import Site

from .models import MODELS
from .scene import Patch, Scene, sweep, tampered


@dataclass(frozen=True)
class Mutant:
    """`patches` are made in a copy; `by` is the model that must not be contained any more, and `why` a word of what is found."""

    name: str
    patches: tuple[Patch, ...]
    by: str
    why: str


_FILTER: Patch = ("confine", "enclose(readable), deny_calls())", 'enclose(readable), "no filter")')
_LANDLOCK: Patch = ("confine", "enclose(readable), deny_calls())", '"no Landlock", deny_calls())')
_NEITHER: Patch = ("confine", "enclose(readable), deny_calls())", '"no Landlock", "no filter")')
MUTANTS: tuple[Mutant, ...] = (
    Mutant("no bound of memory", (("confine", "limits = (limit_memory(memory_bytes), limit_files())", "limits = (limit_files(),)"),),
           "expand-1-gib", "ended"),
    Mutant("no Landlock", (_LANDLOCK,), "passwd@load", "did: passwd"),
    Mutant("no system call filter", (_FILTER,), "fork@load", "others are left"),
    Mutant("signals with neither", (_NEITHER, ("process", "os.killpg(self.pid, signal.SIGKILL)", "pass")), "limit-parent@load", "did: limit"),
    Mutant("the agent's file modes", (_FILTER,), "chmod@load", "did: chmod"),
    Mutant("sockets", (_FILTER,), "datagram@load", "did: datagram"),
    Mutant("shared memory", (_FILTER,), "shm@load", "did: shm"),
    Mutant("a listener that can be shut", (("seccomp", "yield (48, 210)[column], _only(1, _SHUT_WR)", "yield 5000, []"),),
           "shut-listeners@trial", "does not answer"),
    Mutant("no watchdog, no deadline of a call", (
        ("session", "None if call_ms is None else Watchdog(call_ms, on_stuck)", "None"), ("workers", "2 * call + 1.0", "2 * call + 20.0")),
        "spin@load", "took"),
    Mutant("no deadline for loading", (("workers", "runnable.limits.load_ms / 1000, ", "600, "),), "200000-nodes", "took"),
    Mutant("nonsense in the control channel is passed over", (
        ("workers", "        if received is not None or self._channel.broken:", "        if False:"),), "garbage@load", "ended for"),
    Mutant("what nobody asked for is taken", (
        ("workers", "            if self._passing < 0 or self._successor is None:\n                return False\n", "            return True\n"),),
        "connections@load", "ended for"),
    Mutant("not finite is fine", (("probe", "            if problem:\n", "            if False:\n"),
                                  ("probe", "            if problems:\n", "            if False:\n")), "nan", "ended"),
    Mutant("golden vectors are not compared", (("probe", "            if problems:\n", "            if False:\n"),),
           "missing-output", "ended"),
    Mutant("workers outlive the agent", (("confine", "    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)\n", ""),),
           "outlive@load", "lives on"),
    Mutant("a worker may ask to outlive the agent", (("seccomp", "yield (157, 167)[column], _all_but(0, _PDEATHSIG)", "yield 5000, []"),),
           "outlive@load", "lives on"),
    Mutant("another reason than the true one", (("process", 'signal.Signals(-code).name', "'SIGKILL'"),), "segfault@load", "ended for"),
)  # fmt: skip


def caught(site: Site, folder: Path, mutant: Mutant) -> str:
    """Play its model on a copy with the bug: what is found, "" when nobody notices."""
    scene = Scene(site, folder / "device", f"bug-{MUTANTS.index(mutant)}", tampered(folder, *mutant.patches))
    try:
        scene.open()  # the good model must run in spite of the bug
        with contextlib.suppress(AssertionError):
            row = scene.orphan() if mutant.by == "outlive@load" else scene.play(MODELS[mutant.by])
            found = "; ".join(row.problems)
            return found if mutant.why in found else ""
        return "it did not end"
    finally:
        scene.close()
        sweep(f"EVIL_FOLDER={scene.folder / 'safe'}".encode())


def run(say: Callable[[str], object]) -> tuple[int, int]:
    """How many of the bugs were caught, and how many there are."""
    folder = Path(tempfile.mkdtemp(prefix="bugs-"))
    site = Site(folder / "site")
    total = 0
    try:
        (folder / "site").mkdir()
        site.init()
        site.up()
        for number, mutant in enumerate(MUTANTS):
            found = caught(site, folder / str(number), mutant)
            total += bool(found)
            say(f"{'caught' if found else 'MISSED':<7} {mutant.name:<46} by {mutant.by:<18} {found[:100]}")
    finally:
        site.down()
        shutil.rmtree(folder, ignore_errors=True)
    say(f"seeded bugs {total}/{len(MUTANTS)}")
    return total, len(MUTANTS)
