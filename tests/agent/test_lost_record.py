"""Trust that was damaged: it never goes back unnoticed, and the device comes back unvisited when the manager answers its nonce."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgeops.wire.errors import Misuse, Rejected
from edgeops_agent.core.record import Record
from edgeops_agent.core.slot import Build, Slot, Target
from edgeops_agent.shell.disk import StateFolder
from edgeops_agent.shell.ledger import UNSURE_AHEAD, Ledger

from .conftest import Paper

OLD, NEW = Build("a" * 64, "int8", "m", 1), Build("b" * 64, "int8", "m", 2)
BUSY = Slot("trial", OLD, None, Target(9, "run", "r1", NEW), order=9, deadline=99)


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    """A device that has seen order 9 and tries what it asked for, both copies of its record written."""
    made = StateFolder(tmp_path / "state")
    made.create()
    made.prepare()
    trust = Paper().trust
    made.save(Record(trust))
    ledger = Ledger(made)
    for counter in (7, 8, 9):
        slot = Slot(current=OLD, order=counter) if counter < 9 else BUSY
        ledger.store(Record(replace(trust, counter=counter, site_version=2), {"main": slot}, report_seq=50, sites=("c" * 64,)))
    return made


def damage(folder: StateFolder, *names: str) -> None:
    """Bit rot in these copies."""
    for name in names:
        path = folder.root / f"record.{name}"
        data = path.read_bytes()
        path.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])


def test_a_whole_record_is_sure(folder: StateFolder) -> None:
    """Nothing damaged: the newest copy, as it was."""
    record = StateFolder(folder.root).load()
    assert (record.unsure, record.trust.counter, record.slots["main"]) == (False, 9, BUSY)


@pytest.mark.parametrize("name", ["a", "b"])
def test_one_damaged_copy_may_have_been_the_newest(folder: StateFolder, name: str) -> None:
    """The other copy is taken and goes on running, but is unsure until the next sure save has replaced the damaged one."""
    damage(folder, name)
    record = StateFolder(folder.root).load()
    assert record.unsure and record.trust.counter in (8, 9)
    ledger = Ledger(again := StateFolder(folder.root))
    ledger.store(replace(ledger.record, unsure=False))
    assert not StateFolder(again.root).load().unsure


def test_both_damaged_leaves_the_last_proven_model_and_no_orders(folder: StateFolder) -> None:
    """The keepsake knows whom to trust and which model has proven itself; the work of the last order is dropped."""
    damage(folder, "a", "b")
    record = StateFolder(folder.root).load()
    assert (record.unsure, record.trust.site_version, record.sites) == (True, 2, ("c" * 64,))
    assert record.trust.root == Paper().trust.root and record.trust.counter <= 9
    assert record.slots["main"] == Slot(current=OLD, order=record.slots["main"].order)
    assert record.counters == {"records_restored": 1}
    ledger = Ledger(StateFolder(folder.root))
    assert ledger.report_number() > UNSURE_AHEAD
    assert StateFolder(folder.root).load().unsure, "a restart makes nobody sure"


def test_missing_copies_count_as_damaged(folder: StateFolder) -> None:
    """Deleting the record does not start from nought either, and the device cannot be enrolled over."""
    for name in ("a", "b"):
        (folder.root / f"record.{name}").unlink()
    again = StateFolder(folder.root)
    assert again.load().unsure and again.is_enrolled()


def test_without_any_copy_it_is_said(folder: StateFolder) -> None:
    """All three gone: nothing is invented."""
    damage(folder, "a", "b", "kept")
    with pytest.raises(Rejected, match="record-lost"):
        StateFolder(folder.root).load()
    for name in ("a", "b", "kept"):
        (folder.root / f"record.{name}").unlink()
    with pytest.raises(Misuse, match="not-enrolled"):
        StateFolder(folder.root).load()


def test_the_keepsake_is_written_only_when_it_must(folder: StateFolder) -> None:
    """Reports, counters and phases leave it alone."""
    ledger = Ledger(folder)
    ledger.store(replace(ledger.record, report_seq=60))
    path = folder.root / "record.kept"
    before = path.stat().st_ino
    for number in range(5):
        ledger.store(replace(ledger.record, report_seq=100 + number).counted("x").with_slot("main", replace(BUSY, deadline=number)))
    assert path.stat().st_ino == before
    ledger.store(ledger.record.with_slot("main", Slot(current=NEW, previous=OLD, order=9)))
    assert path.stat().st_ino != before
