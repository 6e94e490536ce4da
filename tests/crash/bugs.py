"""Seeded bugs of whatever writes to disk: each a line changed in a copy of the agent, for the searches of the disk proof to find."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import edgeops
import edgeops_agent

HERE = Path(edgeops.__file__).parents[1]
PARTS = 11
AGENT = Path(edgeops_agent.__file__).parent


@dataclass(frozen=True, slots=True)
class Bug:
    """In `file` stands `old`, the bug puts `new` there; `search` finds it in cases that say `near`."""

    name: str
    file: str
    old: str
    new: str
    search: str
    near: str = ""


CLOCK, DISK, LEDGER, RECORD, SUPERVISOR, BUILDS = "shell/clock.py", "shell/disk.py", "shell/ledger.py", "core/record.py", "shell/supervisor.py", "shell/builds.py"
BUGS = (
    Bug("act, then save", LEDGER, "        else:\n            self._save(record)", "        else:\n            self.record = record", "cuts"),
    Bug("a save is not synced", DISK, '+ b"\\n")\n            self.files.sync(path)', '+ b"\\n")', "cuts"),
    Bug("a file is not synced before it takes its name", DISK, "            files.sync(temporary)\n", "", "cuts"),
    Bug("a new name is not synced", DISK, "            files.sync(path.parent)\n", "", "cuts"),
    Bug("files are written in place", DISK, 'path.with_name(f".{path.name}.{os.getpid()}.tmp")', "path", "cuts"),
    Bug("documents are not synced", DISK, "self.put_whole(self.documents / digest, data)", "self.files.write(self.documents / digest, data)", "cuts"),
    Bug("the record has one copy", DISK, 'self._next = "b" if self._next == "a" else "a"', 'self._next = "a"', "cuts"),
    Bug("the newer copy is written over", DISK, 'self._next = "b" if name == "a" else "a"', "self._next = name", "cuts", "/record."),
    Bug("the older copy is believed", RECORD, "return max(found,", "return min(found,", "cuts"),
    Bug("report numbers are not put aside", LEDGER, "self.store(replace(self.record, report_seq=self._reports + AHEAD))", "pass", "cuts"),
    Bug("the sweep takes what a slot needs", BUILDS, "wanted |= {side.sha256", "wanted = {side.sha256", "cuts"),
    Bug("a torn record is believed", RECORD, 'if not data.endswith(_seal(plain)):', "if False:", "records"),
    Bug("a torn copy makes nobody unsure", DISK, "if records.is_torn(copies[self._next]) else record", "if False else record", "records"),
    Bug("counters from zero after corruption", RECORD, "slots=lasting(kept).slots, unsure=True)", "slots=lasting(kept).slots)", "records"),
    Bug("the third copy is never renewed", LEDGER, "        self._keep()\n", "", "records"),
    Bug("objects are believed unread", BUILDS, "        folder.read(side.sha256, side.size)", "        folder.has(side.sha256, side.size)", "blobs"),
    Bug("an object's bytes are not checked", DISK, "data = self.files.read(path)\n            check_object(digest, size, data)", "data = self.files.read(path)", "blobs"),
    Bug("a damaged object stays", DISK, "self.files.remove(path)\n            raise\n        return data", "pass\n            raise\n        return data", "blobs"),
    Bug("a killed agent's names are not made durable", DISK, "                self.files.sync(folder)\n\n", "\n", "second cuts", "(sync /documents), then"),
    Bug("a name that could not be synced is forgotten", DISK, "        self._owed.add(path.parent)\n", "", "refusals", "sync /documents"),
    Bug("what the disk refused is acted upon", LEDGER, "raise Unsaved(error.reason, error.message) from None", "self.record = record\n            return", "refusals"),
    Bug("a document that cannot be read is a lost one", DISK, 'except FileNotFoundError:\n            raise Rejected("missing-document"', 'except OSError:\n            raise Rejected("missing-document"', "refusals", "read /documents"),
    Bug("deadlines by the wall clock", CLOCK, "return int(self.monotonic())", "return int(self._wall())", "clocks"),
    Bug("the wall clock is believed over a signed time", CLOCK, "        if self._anchor:\n            at, since", "        if False:\n            at, since", "clocks"),
    Bug("a birth that could not be said is forgotten", SUPERVISOR, "missed = not self.voice.birth(", "missed = None is self.voice.birth(", "refusals"),
)

def run(bug: Bug | None, search: str, room: Path) -> tuple[bool, str]:
    """(whether something was found, what) by one part of a search on a copy of the agent, with a bug or as it is."""
    copy = room / "agent"
    shutil.copytree(AGENT, copy / "edgeops_agent", ignore=shutil.ignore_patterns("__pycache__"))
    if bug is not None:
        path = copy / "edgeops_agent" / bug.file
        text = path.read_text()
        if text.count(bug.old) != 1:
            return False, f"the bug {bug.name!r} no longer fits the source"
        path.write_text(text.replace(bug.old, bug.new))
    found = os.pathsep.join(map(str, (copy, HERE, Path(__file__).parents[2])))
    command = [sys.executable, "-m", "tests.crash.proof", search, str(PARTS), bug.near if bug else ""]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": found}, cwd=HERE, capture_output=True, text=True, check=False)
    return done.returncode == 1 and not done.stderr, done.stdout + done.stderr


def is_caught(bug: Bug) -> bool:
    """Whether the search finds this bug."""
    with tempfile.TemporaryDirectory() as room:
        return run(bug, bug.search, Path(room))[0]


def full(say: Callable[[str], None] = print, parts: int = 2) -> tuple[int, int]:
    """(seeded bugs caught, seeded bugs), so many at a time."""
    with ThreadPoolExecutor(parts) as pool:
        caught = dict(zip((bug.name for bug in BUGS), pool.map(is_caught, BUGS), strict=True))
    say(f"simulated disk: seeded bugs {sum(caught.values())}/{len(caught)}")
    for name in (name for name, was in caught.items() if not was):
        say(f"simulated disk: not caught: {name}")
    return sum(caught.values()), len(caught)
