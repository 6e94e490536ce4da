"""Seeded bugs of what a person at the device relies on: each, put into a copy of the source, is caught by a test of this folder."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgeops.wire.errors import EdgeopsError
from edgeops_agent.shell import chronicle, consent, doctor, journal, logbook

from . import test_chronicle, test_consent, test_journal, test_people
from .test_consent import root as root
from .test_people import device as device

Check = Callable[[Any], None]
MUTANTS: tuple[tuple[str, ModuleType, str, str, str], ...] = (
    ("the log is never put aside", logbook, "if self._size() + len(data) > MOST_BYTES:", "if False:", "bounds"),
    ("the log is put aside under ever new names", logbook, "self.path.replace(self.older)",
     'self.path.replace(self.path.with_name(f"agent.log.{line.fields}"))', "bounds"),
    ("a line is glued to what a power cut left", logbook, 'data = b"\\n" + data if torn else data', "data = data", "torn line"),
    ("lost lines are not counted", journal, "1 if missed or not take(line) else 0", "0 * (not take(line))", "counted"),
    ("a log that cannot be written raises", logbook, "        except OSError:\n            return False\n\n    def _size",
     "        except ZeroDivisionError:\n            return False\n\n    def _size", "counted by the book"),
    ("every provoked line is written", journal, "if self._now() - at < QUIET_S:", "if False:", "sparing"),
    ("kinds of a provoked line hide each other", journal, "self._last.get((event, kind)", "self._last.get((event, '')", "sparing"),
    ("an approval covers any order", consent, "(answer.epoch, answer.order, answer.release) != (epoch, order, release)",
     "(answer.epoch, answer.release) != (epoch, release)", "bound"),
    ("an approval covers newer orders", consent, "(answer.epoch, answer.order, answer.release) != (epoch, order, release)",
     "(answer.epoch, answer.release) != (epoch, release) or answer.order > order", "bound"),
    ("an approval covers any release", consent, "(answer.epoch, answer.order, answer.release) != (epoch, order, release)",
     "(answer.epoch, answer.order) != (epoch, order)", "bound"),
    ("an approval outlives the epoch", consent, "(answer.epoch, answer.order, answer.release) != (epoch, order, release)",
     "(answer.order, answer.release) != (order, release)", "bound"),
    ("one slot answers for another", consent, 'self._files.read(self._folder / f"{slot}.json"',
     'self._files.read(self._folder / "main.json"', "bound"),
    ("a denial is read as an approval", consent, "return VERDICTS[answer.verdict]", 'return "yes"', "denial"),
    ("no denial is ever read", consent, "return VERDICTS[answer.verdict]",
     'return "yes" if answer.verdict == "approve" else ""', "denial"),
    ("a torn record is fine", doctor, "if records.is_torn(data):", "if False:", "torn record"),
    ("a torn record is shown as not written yet", doctor, "if records.is_torn(data):", "if data == b'':", "torn record"),
    ("a torn keepsake is fine", doctor, 'Finding("keepsake", "warn", text', 'Finding("keepsake", "ok", text', "keepsake"),
    ("a record that is lost is a warning", doctor, 'Finding("record", "fail"', 'Finding("record", "warn"', "torn record"),
    ("a rollback is told like a success", chronicle, '"rolled-back": "warn", ', "", "bad end"),
    ("phases are not told", chronicle, 'if new.phase in (old.phase, "idle") or', "if new.phase or", "good end"),
    ("only commits are told", chronicle, "if outcome not in old.outbox and", 'if outcome.verdict == "committed" and', "bad end"),
)  # fmt: skip


def load(module: ModuleType, old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A copy of the module with the bug in it."""
    source = Path(module.__file__ or "").read_text(encoding="utf-8")
    assert not old or source.count(old) == 1, "the seeded bug no longer fits the source"
    made = ModuleType(module.__name__ + "_seeded")
    made.__package__ = module.__package__
    monkeypatch.setitem(sys.modules, made.__name__, made)
    exec(compile(source.replace(old, new) if old else source, made.__name__, "exec"), made.__dict__)
    return made


@pytest.fixture
def checks(tmp_path: Path, root: Path, device: test_people.Device, monkeypatch: pytest.MonkeyPatch) -> dict[str, Check]:
    """What must hold, by name; each takes the module to be judged."""
    apart = tmp_path / "apart"
    apart.mkdir()

    def by_the_book(made: Any) -> None:
        monkeypatch.setattr(test_journal, "Logbook", made.Logbook)
        test_journal.check_counted(journal, apart)

    def keepsake(made: Any) -> None:
        test_people.spoil(device.folder.root / "record.kept")
        assert {one.check: one for one in made.examine(device.folder.root, 2e9)}["keepsake"].level == "warn"

    return {
        "bounds": lambda made: test_journal.check_bounds(made, apart),
        "torn line": lambda made: test_journal.check_torn(made, apart),
        "counted": lambda made: test_journal.check_counted(made, apart),
        "counted by the book": by_the_book, "sparing": test_journal.check_sparing,
        "bound": lambda made: test_consent.check_bound(made, root), "denial": lambda made: test_consent.check_denial(made, root),
        "torn record": lambda made: test_people.check_torn(made, device.folder.root), "keepsake": keepsake,
        "good end": test_chronicle.check_good, "bad end": test_chronicle.check_bad,
    }  # fmt: skip


@pytest.mark.parametrize(("name", "module", "old", "new", "check"), MUTANTS, ids=[row[0] for row in MUTANTS])
def test_seeded_bug_is_caught(
    name: str, module: ModuleType, old: str, new: str, check: str, checks: dict[str, Check], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check fails on the copy with the bug."""
    with pytest.raises((AssertionError, OSError, EdgeopsError)):
        checks[check](load(module, old, new, monkeypatch))


@pytest.mark.parametrize(
    ("module", "check"), sorted({(row[1], row[4]) for row in MUTANTS}, key=lambda row: row[1]), ids=lambda value: str(value)[:30]
)
def test_the_unspoilt_copy_passes(
    module: ModuleType, check: str, checks: dict[str, Check], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: a copy without a bug holds all that is checked."""
    checks[check](load(module, "", "", monkeypatch))
