"""The A/B record: what is written is read, what is damaged is noticed, the newest valid copy wins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeops.wire.errors import Rejected
from edgeops_agent.core import record as records
from edgeops_agent.core.record import Record
from edgeops_agent.core.slot import Build, Outcome, Slot, Target

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
