"""Whatever trust accepts decodes from its own record: no signed document may make a device forget all it knows at its next start.

Limits of a trial belong here too: a device adds them to its clock and keeps the sum in that record.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeops.wire import trust
from edgeops.wire.desired import TRIAL_BOUNDS, Floor, SlotWish, Trial
from edgeops.wire.errors import Rejected
from edgeops.wire.fields import Fields
from edgeops.wire.messages import Bundle
from edgeops_agent.core import receive
from edgeops_agent.core import record as records
from edgeops_agent.core.slot import Done
from edgeops_agent.core.update import step

from . import world as w

LIMIT = 2**53 - 1
numbers = st.integers(0, 50) | st.integers(LIMIT - 3, LIMIT)
names = st.sampled_from(["m", "m" * 60])
floors = st.builds(
    lambda name, first, count, least: {f"{name}{n}": least for n in range(first, first + count)},
    names, st.sampled_from([0, 500, 1024, 2000]), st.sampled_from([1, 600, 1024]), numbers,
)  # fmt: skip
deeds = st.one_of(
    st.builds(lambda n: ("site", replace(w.SITE, version=max(1, n))), numbers),
    st.builds(lambda n, held: ("floor", Floor(w.FLEET, max(1, n), held)), st.integers(3, 20), floors),
    st.builds(lambda n: ("time", replace(w.TIME, now=n)), numbers),
    st.builds(lambda n: ("command", replace(w.COMMAND, counter=max(1, n))), numbers),
    st.builds(lambda n, end: ("desired", replace(w.DESIRED, counter=max(1, n), expires=end)), numbers, numbers),
    st.builds(lambda issued: ("root", w.root_of(2, issued=issued)), numbers),
)


def accepted(held: trust.Trust, kind: str, document: object) -> trust.Trust:
    """What a device trusts after this document, whichever rule it falls under."""
    data = w.sealed(kind, document) if kind != "root" else w.seal_root(document)  # type: ignore[arg-type]
    match kind:
        case "root":
            return trust.advance_root(held, data)
        case "site":
            return trust.accept_site(held, data)[0]
        case "floor":
            return trust.accept_floor(held, data)
        case "time":
            return trust.accept_time(held, data, w.NONCE)[0]
        case "command":
            return trust.accept_command(held, data)[0]
    return trust.accept_desired(held, data, w.NOW)[0]


@settings(max_examples=80, deadline=None)
@given(st.lists(deeds, max_size=8))
def test_what_is_accepted_decodes_from_its_own_record(steps: list[tuple[str, object]]) -> None:
    """Any documents by all the rules, rightly signed, with the numbers of a thief: what is believed can be kept and read again."""
    held = w.TRUST
    for kind, document in steps:
        try:
            held = accepted(held, kind, document)
        except Rejected:
            continue
        assert records.decode(records.encode(records.Record(held), 1))[1].trust == held


def test_floors_of_too_many_models_are_refused() -> None:
    """Each document holds what a document may; together they would be more than the record can be read with."""
    first, second = ({f"m{kind}-{n}": 1 for n in range(1024)} for kind in "ab")
    held = trust.accept_floor(replace(w.TRUST, floors={}), w.sealed("floor", Floor(w.FLEET, 3, first)))
    assert len(held.floors) == 1024
    with pytest.raises(Rejected, match="too-many-floors"):
        trust.accept_floor(held, w.sealed("floor", Floor(w.FLEET, 4, second)))
    again = trust.accept_floor(held, w.sealed("floor", Floor(w.FLEET, 4, first)))
    assert (again.floor_version, again.floors) == (4, held.floors)


@contextmanager
def refused(name: str) -> Iterator[None]:
    """The limit is refused, by its name and with its bounds."""
    least, most = TRIAL_BOUNDS[name]
    with pytest.raises(Rejected, match=rf"trial: field '{name}' must be an integer (from {least} to {most}|>= {least})"):
        yield


@pytest.mark.parametrize("name", Trial.__slots__)
def test_a_trial_has_bounds(name: str) -> None:
    """Every limit has a least and a most; both are taken, one beyond is refused."""
    least, most = TRIAL_BOUNDS[name]
    for good in (least, most, getattr(Trial(), name)):
        assert getattr(Trial.parse(Fields({name: good}, "trial")), name) == good
    for bad in (least - 1, most + 1, LIMIT):
        with refused(name):
            Trial.parse(Fields({name: bad}, "trial"))


def test_an_order_with_the_greatest_limits_can_be_kept() -> None:
    """All limits at their most: every phase of such an update is saved and read again."""
    trial = Trial(**{name: most for name, (_, most) in TRIAL_BOUNDS.items()})
    wish: SlotWish = replace(w.DESIRED.slots["main"], trial=trial)
    order = w.sealed("desired", replace(w.DESIRED, slots={"main": wish}))
    situation = receive.Situation(w.NOW, 2**40, "", w.DEVICE_CAN, {})
    bundle = Bundle((("release", w.sealed("release", w.RELEASE)), ("stream", w.LISTED), ("desired", order)))
    told = receive.receive(records.Record(w.TRUST), bundle, situation)
    assert not told.refused
    kept, slot, phases = told.record, told.record.slots["main"], []
    for phase in ("fetch", "verify", "install"):
        phases.append(slot.phase)
        slot, _ = step(slot, Done(phase, slot.order, 2**40))
        kept = kept.with_slot("main", slot)
        assert records.decode(records.encode(kept, 1))
    assert [*phases, slot.phase] == ["fetch", "verify", "install", "trial"]
