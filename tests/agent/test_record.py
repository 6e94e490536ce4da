"""The A/B record: what is written is read, what is damaged is noticed, the newest valid copy wins."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeops.wire import canonical
from edgeops.wire.errors import Rejected
from edgeops.wire.keys import sha256
from edgeops.wire.trust import MAX_ROOT
from edgeops_agent.core import record as records
from edgeops_agent.core.receive import MAX_SLOTS
from edgeops_agent.core.record import MAX_COUNTERS, MAX_OUTCOMES, Record
from edgeops_agent.core.slot import MAX_BAD, MAX_OUTBOX, Build, Done, Failed, Outcome, Slot, Target
from edgeops_agent.core.update import step
from edgeops_agent.shell.disk import COPY_BYTES

from .conftest import Paper

builds = st.builds(Build, st.sampled_from(["a" * 64, "b" * 64]), st.just("int8"), st.just("m"), st.integers(1, 9))
targets = st.builds(Target, st.integers(1, 99), st.sampled_from(["run", "none"]), st.just("r1"), st.none() | builds)
outcomes = st.builds(Outcome, st.integers(1, 99), st.just("r1"), st.just("a" * 64), st.sampled_from(["committed", "failed"]))
slots = st.builds(
    Slot, st.sampled_from(["idle", "fetch", "trial"]), st.none() | builds, st.none() | builds, st.none() | targets,
    st.integers(0, 99), st.integers(0, 4), st.integers(0, 10**9), st.just(("a", "b")), st.just(("x/y",)),
    st.lists(outcomes, max_size=3).map(tuple), st.none() | outcomes,
)  # fmt: skip


@given(slots, st.integers(0, 2**40))
def test_round_trip(slot: Slot, seq: int) -> None:
    """Any record comes back as it was."""
    record = Record(Paper().trust, {"main": slot}, {"refused_desired": 3}, 17)
    assert records.decode(records.encode(record, seq)) == (seq, record)


def test_an_older_agent_reads_the_record_of_a_newer_one() -> None:
    """Fields that this agent does not know are left out: an agent that is set back to an older version still has its record."""
    slot = Slot(current=Build("a" * 64, "int8", "m", 1), target=Target(3, "run", "r"), last=Outcome(3, "r", "a" * 64, "committed"))
    body = canonical.decode(records.encode(Record(Paper().trust, {"main": slot}), 5))["body"]
    for part in (body["slots"]["main"], *(body["slots"]["main"][name] for name in ("current", "target", "last"))):
        part["later"] = 1
    copy = {"body": body, "seq": 6, "sha256": sha256(canonical.encode({"body": body, "seq": 6}))}
    assert records.decode(canonical.encode(copy)) == (6, Record(Paper().trust, {"main": slot}))


def test_every_flipped_bit_is_noticed() -> None:
    """No byte of a record can change without its being refused."""
    data = records.encode(Record(Paper().trust, {"main": Slot()}), 5)
    for at in range(len(data)):
        for bit in (1, 16, 128):
            broken = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
            with pytest.raises(Rejected):
                records.decode(broken)


def test_newest_valid_copy_wins() -> None:
    """The newer copy is taken, the older one when the newer is torn, none when both are."""
    old, new = (records.encode(Record(Paper().trust, report_seq=n), n) for n in (4, 5))
    found = records.newest({"a": old, "b": new})
    assert found is not None and found[:2] == ("b", 5)
    found = records.newest({"a": old, "b": new[:-7]})
    assert found is not None and found[:2] == ("a", 4)
    assert records.newest({"a": b"", "b": None}) is None


def test_nonsense_cannot_fill_the_record() -> None:
    """However many kinds of refusals are provoked, the record stays one that can be read back, and none goes uncounted."""
    record = Record(Paper().trust)
    for index in range(500):
        record = record.counted(f"refused_desired.{index}")
    assert records.decode(records.encode(record, 1))[1] == record
    assert sum(record.counters.values()) == 500


def test_the_largest_record_fits_where_it_is_laid_out() -> None:
    """Sixteen slots full of outcomes, every name, number and list as long as it may be: a full disk still takes the save."""
    most, name = 2**53 - 1, "n" * 64
    build = [Build(letter * 64, name, name, most, most, most, most) for letter in "abc"]
    target = Target(most, "prefetch", name, build[0], most, name, most, most, most, most, most, most, most)
    bad = tuple(f"{'a' * 64}/{number:064d}" for number in range(MAX_BAD))
    full = Slot("trial", build[1], build[2], target, most, 20, most, bad=bad)
    full, _ = step(full, Failed("trial", most, 0, "r" * 999, '"\x01e\u0301\\' * 999))
    ended, _ = step(full, Done("rollback", most, 0))
    assert ended.last and len(canonical.encode(ended.last.detail)) <= 1002
    full = replace(full, last=ended.last, outbox=ended.outbox * MAX_OUTBOX, deadline=most)
    floors = {f"{number:064d}": most for number in range(1024)}
    trust = replace(Paper().trust, root=bytes(4 * MAX_ROOT // 3), floors=floors, counter=most, command=most, time_floor=most)
    counters = {f"refused_desired.{number:064d}": most for number in range(MAX_COUNTERS)}
    record = Record(trust, {}, counters, most, ("a" * 64, "b" * 64))
    for number in range(MAX_SLOTS):
        record = record.with_slot(f"{number:064d}", full)
    assert sum(len(slot.outbox) for slot in record.slots.values()) == MAX_OUTCOMES
    assert len(records.encode(record, most)) < COPY_BYTES


def test_the_oldest_outcomes_of_all_slots_go_first() -> None:
    """Beyond the bound the newest are kept, whichever slot they are of."""
    record = Record(Paper().trust)
    for number in range(1, 4):
        orders = range(number, 16 * 3 + number, 3)
        record = record.with_slot(f"s{number}", Slot(outbox=tuple(Outcome(order, "r1", "", "failed") for order in orders)))
    kept = sorted(one.order for slot in record.slots.values() for one in slot.outbox)
    assert kept == list(range(17, 49))
