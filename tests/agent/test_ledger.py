"""Save, then act: what the disk refuses has not happened; what only counts wears out no disk; report numbers never go back."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from edgeops.wire.errors import Unfit
from edgeops_agent.core.ending import tell
from edgeops_agent.core.record import Record, decode
from edgeops_agent.core.slot import Outcome, Slot
from edgeops_agent.shell.disk import StateFolder
from edgeops_agent.shell.ledger import AHEAD, COUNTS_S, FIRST_WAIT_S, Ledger, Unsaved

from .conftest import Paper


@dataclass
class Disk(StateFolder):
    """A folder whose saves are counted and may be refused."""

    root: Path
    refuse: bool = False
    saves: int = 0
    tries: int = 0
    clock: float = 1000.0
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.root)

    def save(self, record: Record) -> None:
        """Save, or refuse as a full disk does."""
        self.tries += 1
        if self.refuse:
            raise Unfit("disk-full", "no")
        self.saves += 1
        super().save(record)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """An enrolled folder."""
    made = Disk(tmp_path / "state")
    made.create()
    made.save(Record(Paper().trust))
    made.saves = made.tries = 0
    return made


def ledger_of(disk: Disk) -> Ledger:
    """A ledger on the folder, with the disk's own clock."""
    return Ledger(disk, lambda: disk.clock)


def test_a_refused_save_changes_nothing_and_is_tried_less_and_less(disk: Disk) -> None:
    """Nothing of a refused record is believed; tries come after 1, 2, 4 … seconds; then everything goes on."""
    ledger, disk.refuse = ledger_of(disk), True
    wanted = ledger.record.with_slot("main", Slot(order=7))
    for _ in range(1000):
        with pytest.raises(Unsaved):
            ledger.store(wanted)
    assert (disk.tries, ledger.refusals, ledger.record.slots) == (1, 1, {})
    for wait in (FIRST_WAIT_S, 2, 4, 8):
        disk.clock += wait
        for _ in range(10):
            with pytest.raises(Unsaved):
                ledger.store(wanted)
    assert disk.tries == 5
    disk.refuse, disk.clock = False, disk.clock + 60
    ledger.store(wanted)
    assert StateFolder(disk.root).load().slots == wanted.slots == ledger.record.slots


def test_counters_alone_save_nothing_at_once_and_are_not_lost_at_exit(disk: Disk) -> None:
    """Ten thousand refusals are one save after half a minute, ride along with any other save, and are saved on leaving."""
    ledger = ledger_of(disk)
    for _ in range(10_000):
        ledger.store(ledger.record.counted("refused_blocks"))
        ledger.settle()
    assert (disk.saves, ledger.record.counters["refused_blocks"]) == (0, 10_000)
    disk.clock += COUNTS_S
    ledger.settle()
    assert (disk.saves, StateFolder(disk.root).load().counters["refused_blocks"]) == (1, 10_000)
    ledger.store(ledger.record.counted("refused_blocks"))
    ledger.store(ledger.record.with_slot("main", Slot(order=7)))
    assert (disk.saves, StateFolder(disk.root).load().counters["refused_blocks"]) == (2, 10_001)
    ledger.store(ledger.record.counted("refused_blocks"))
    ledger.settle(at_once=True)
    assert (disk.saves, StateFolder(disk.root).load().counters["refused_blocks"]) == (3, 10_002)


def test_report_numbers_never_go_back(disk: Disk) -> None:
    """Numbers grow over restarts without warning, and a hundred of them cost one save."""
    seen, ledger = [], ledger_of(disk)
    for restart in range(5):
        seen += [ledger.report_number() for _ in range(30 + AHEAD * (restart == 2))]
        ledger = ledger_of(disk)
    assert seen == sorted(set(seen))
    assert disk.saves == 6


def test_an_outcome_knows_which_reports_cannot_have_told_of_it(disk: Disk) -> None:
    """The number of the last report before it was stored is kept with it; after a restart, that of the last report before that."""
    for order in (1, 2):
        ledger = ledger_of(disk)
        seen = [ledger.record.report_seq] * (order - 1)
        seen.append(max(ledger.report_number() for _ in range(7)))
        slot = ledger.record.slots.get("main", Slot())
        ledger.store(ledger.record.with_slot("main", tell(slot, Outcome(order, "r1", "a" * 64, "failed"))))
        assert ledger.report_number() > seen[-1]
        ledger.store(ledger.record.counted("x"))
        assert [outcome.after for outcome in ledger.record.slots["main"].outbox] == seen


def test_what_a_refused_save_left_on_the_disk_was_not_told(disk: Disk) -> None:
    """The bytes of a save that failed may be there after a restart, with a number that a later report has used for other news."""
    ledger = ledger_of(disk)
    first = ledger.report_number()
    outcome = tell(Slot(), Outcome(1, "", "a" * 64, "failed", "crashed"))
    disk.save(ledger.record.with_slot("main", outcome).noted(first))
    later = ledger_of(disk)
    assert later.record.slots["main"].outbox[0].after > first and later.report_number() > later.record.slots["main"].outbox[0].after


def test_an_unsure_record_is_saved_twice_before_it_is_relied_upon(disk: Disk) -> None:
    """Whichever copy is lost next, the report numbers used meanwhile are not used again."""
    ledger_of(disk).report_number()
    for name in ("a", "b"):
        (disk.root / f"record.{name}").write_bytes(b"torn")
    ledger = ledger_of(disk)
    ledger.store(ledger.record.with_slot("main", Slot(order=7)))
    used = ledger.report_number()
    newest = max(("a", "b"), key=lambda name: decode((disk.root / f"record.{name}").read_bytes().split(b"\n")[0])[0])
    (disk.root / f"record.{newest}").write_bytes(b"torn")
    assert ledger_of(disk).report_number() > used


def test_a_save_needs_no_new_space(disk: Disk) -> None:
    """Both copies are laid out once; saves neither grow a file nor make one."""
    disk.prepare()
    before = {path: path.stat().st_size for path in disk.root.rglob("*") if path.is_file()}
    record = Record(Paper().trust)
    for number in range(5):
        record = replace(record, report_seq=number).counted("x")
        disk.save(record)
        assert StateFolder(disk.root).load() == record
    assert {path: path.stat().st_size for path in disk.root.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("cut", [0, 1, 50, 200, -2, -1])
def test_a_torn_save_goes_back_by_one(disk: Disk, cut: int) -> None:
    """A save in place that is cut anywhere leaves the record before it, also when the torn copy held a longer one."""
    disk.prepare()
    long = Record(Paper().trust, {f"slot-{number}": Slot() for number in range(9)})
    for record in (long, long, replace(long, report_seq=1)):
        disk.save(record)
    older = disk.root / f"record.{disk._next}"
    kept = older.read_bytes()
    disk.save(Record(Paper().trust, report_seq=2))
    written = older.read_bytes()
    end = written.index(b"\n") + 1
    at = cut if cut >= 0 else end + cut
    older.write_bytes(written[:at] + kept[at:])
    assert StateFolder(disk.root).load().report_seq == 1
