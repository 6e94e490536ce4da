"""A real agent process, killed and refused at its calls to the file system: a sample of all points, and seeded bugs."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import edgeops_agent

from .killing import run
from .shim import NO_COMPILER, compiler

AGENT = Path(edgeops_agent.__file__).parent
MANY = 150
DISK, FILES, LEDGER, FETCHING = "shell/disk.py", "shell/files.py", "shell/ledger.py", "shell/fetching.py"
FRAME = "if len(data) == self.stream.length(index) and any(data):\n                    with contextlib.suppress(Rejected):"
BUGS: tuple[tuple[str, str, tuple[tuple[str, str], ...], str], ...] = (
    ("the record is cut short and written anew", DISK,
     (('self.root / f"record.{self._next}"', 'self.root / "record.a"'),
      ("self.files.patch(path, 0, records", "self.files.write(path, records")), "middle"),
    ("told before it is saved", LEDGER,
     (("else:\n            self._save(record)", "else:\n            self.record = record"),
      ("and (at_once or self._now() - self._saved_at >= COUNTS_S)", "")), "before"),
    ("a part of a frame is believed", FETCHING,
     ((FRAME, "if data:\n                    with contextlib.suppress(Rejected):"),
      ("_ = place(self.progress, index, data)", "_ = Progress(self.stream, self.progress.have | 1 << index), 0")),
     "middle"),
    ("what a sync says is ignored", FILES,
     (("    os.fsync(descriptor)", "    with contextlib.suppress(OSError):\n                os.fsync(descriptor)"),), "loses"),
    ("a save that is refused has no name", DISK,
     (("with refusals(path.name):\n            for folder", "if True:\n            for folder"),),
     "w.*fails ENOSPC"),
    ("a lock that does not close ends the agent", FILES,
     (("contextlib.suppress(OSError):  # it is let go", "contextlib.nullcontext():  # it is let go"),), "x.*fails EIO"),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _compiled() -> None:
    """What is tried here needs a C compiler."""
    if compiler() is None:
        pytest.fail(NO_COMPILER) if os.environ.get("CI") else pytest.skip(NO_COMPILER)


def test_no_kill_and_no_refusal_costs_a_device(tell: Callable[[str], None]) -> None:
    """A sample of the points at which a process is killed or a call refused (all: `make crash`)."""
    points, violations = run(tell, parts=1, most=60)
    assert not violations, violations[:5]
    assert points == 60


@pytest.mark.parametrize(("name", "file", "changes", "like"), BUGS, ids=[row[0] for row in BUGS])
def test_a_bug_is_found(tmp_path: Path, name: str, file: str, changes: tuple[tuple[str, str], ...], like: str) -> None:
    """A copy of the agent with this bug loses something at one of the points that are like this; so the harness sees that."""
    shutil.copytree(AGENT, tmp_path / AGENT.name, ignore=shutil.ignore_patterns("__pycache__"))
    text = (tmp_path / AGENT.name / file).read_text()
    for old, new in changes:
        assert text.count(old) == 1, f"the bug {name!r} no longer fits the source"
        text = text.replace(old, new)
    (tmp_path / AGENT.name / file).write_text(text)
    points, violations = run(lambda text: None, 1, MANY, like, str(tmp_path), enough=1)
    assert points and violations, f"not found at {points} points: {violations}"
