"""What a device makes of a bundle: counters, offers, refusals, all in one new record."""

from dataclasses import replace

import pytest

from edgeops.wire.desired import SlotWish
from edgeops.wire.errors import Rejected
from edgeops.wire.messages import Bundle
from edgeops_agent.core.receive import MAX_SLOTS, Situation, obey, receive
from edgeops_agent.core.record import Record
from edgeops_agent.core.slot import Fetch

from .conftest import NOW, Paper, make_release

NONCE = "a" * 64


def situation(paper: Paper, **changes: object) -> Situation:
    """An ordinary moment."""
    return replace(Situation(NOW, 100, NONCE, paper.device, {}), **changes)


def test_desired_with_its_release_starts_a_fetch(paper: Paper) -> None:
    """An order that comes with its release raises the counter and starts fetching, in one record."""
    digest, release = paper.release(make_release())
    bundle = Bundle((("release", release), ("desired", paper.desired(7, digest))))
    got = receive(Record(paper.trust), bundle, situation(paper))
    assert got.record.trust.counter == 7
    assert got.record.slots["main"].phase == "fetch"
    assert isinstance(got.commands[0][1], Fetch)
    assert got.documents == {digest: release}
    assert not got.refused


def test_desired_without_its_release_is_refused_and_can_come_again(paper: Paper) -> None:
    """A missing release refuses the whole order, so that its counter is not used up."""
    digest, release = paper.release(make_release())
    got = receive(Record(paper.trust), Bundle((("desired", paper.desired(7, digest)),)), situation(paper))
    assert got.record.trust.counter == 0
    assert got.record.counters["refused_desired.missing-release"] == 1
    again = receive(got.record, Bundle((("release", release), ("desired", paper.desired(7, digest)))), situation(paper))
    assert again.record.trust.counter == 7


def test_replay_is_counted_and_a_duplicate_is_not_an_attack(paper: Paper) -> None:
    """An older counter is a refused replay; the same one again is only a duplicate delivery."""
    digest, release = paper.release(make_release())
    bundle = Bundle((("release", release), ("desired", paper.desired(7, digest))))
    first = receive(Record(paper.trust), bundle, situation(paper)).record
    again = receive(first, bundle, situation(paper)).record
    assert again.counters == {"duplicate_desired": 1}
    assert again.slots == first.slots
    old = receive(again, Bundle((("desired", paper.desired(6, digest)),)), situation(paper, documents={digest: release})).record
    assert old.counters["refused_desired.replay"] == 1


def test_unfit_release_ends_at_once_with_the_reason(paper: Paper) -> None:
    """A variant for another device class is answered with `unfit` before anything is fetched."""
    digest, release = paper.release(make_release(classes=("arm-dot",)))
    got = receive(Record(paper.trust), Bundle((("release", release), ("desired", paper.desired(3, digest)))), situation(paper))
    slot = got.record.slots["main"]
    assert slot.phase == "idle"
    assert slot.last is not None and (slot.last.verdict, slot.last.reason) == ("unfit", "device-class")
    assert not any(isinstance(command, Fetch) for _, command in got.commands)


def test_an_acknowledged_outcome_leaves_the_outbox_once(paper: Paper) -> None:
    """A new command empties the outbox up to its order; the same again changes nothing; an older one is a refused replay."""
    digest, release = paper.release(make_release(classes=("arm-dot",)))
    bundle = Bundle((("release", release), ("desired", paper.desired(3, digest))))
    full = receive(Record(paper.trust), bundle, situation(paper)).record
    assert [outcome.order for outcome in full.slots["main"].outbox] == [3]
    early, _ = obey(full, paper.ack(1, 2))
    assert early.slots["main"].outbox and early.trust.command == 1
    done, _ = obey(early, paper.ack(2, 3))
    assert not done.slots["main"].outbox and done.trust.command == 2
    assert obey(done, paper.ack(2, 3)) == (done, ())
    for data, reason in ((paper.ack(1, 9), "replay"), (paper.ack(9, 9, epoch=1), "epoch")):
        with pytest.raises(Rejected, match=reason):
            obey(done, data)


def test_forged_and_expired_orders_are_refused(paper: Paper) -> None:
    """An order by another key, and one that has expired, change nothing but a counter."""
    digest, release = paper.release(make_release())
    thief = Paper({**paper.keys, "online": paper.keys["site"]})
    for data, reason in ((thief.desired(9, digest), "unknown-key"), (paper.desired(9, digest, expires=NOW), "expired")):
        got = receive(Record(paper.trust), Bundle((("release", release), ("desired", data))), situation(paper))
        assert got.record.trust.counter == 0 and not got.record.slots
        assert got.record.counters[f"refused_desired.{reason}"] == 1


def test_signed_time_is_believed_before_the_expiry_is_judged(paper: Paper) -> None:
    """A device whose clock stands at 1970 refuses an order that the signed time beside it shows to be expired."""
    digest, release = paper.release(make_release())
    late = paper.time(NONCE, NOW + 5000)
    bundle = Bundle((("time", late), ("release", release), ("desired", paper.desired(9, digest))))
    got = receive(Record(paper.trust), bundle, situation(paper, now=0))
    assert got.time is not None and got.time.now == NOW + 5000
    assert got.record.counters["refused_desired.expired"] == 1
    assert got.record.trust.time_floor == NOW + 5000


def test_remove_empties_the_slot(paper: Paper) -> None:
    """An order to hold nothing leaves an empty slot and says so."""
    got = receive(Record(paper.trust), Bundle((("desired", paper.desired(1, "")),)), situation(paper))
    slot = got.record.slots["main"]
    assert slot.current is None and slot.last is not None and slot.last.verdict == "removed"


def two_slots(paper: Paper, counter: int, **wishes: str) -> Bundle:
    """A desired document, and its release, with a wish (action) for each slot named, all of the same release."""
    digest, release = paper.release(make_release())
    slots = {
        name: SlotWish(action, digest, "int8", "", "r1") if action != "none" else SlotWish("none", rollout="r1")
        for name, action in wishes.items()
    }
    return Bundle((("release", release), ("desired", paper.desired(counter, digest, slots=slots))))


def test_a_second_slot_is_unfit_and_the_first_unharmed(paper: Paper) -> None:
    """Only one slot may run: the one that runs, else `main`, else the first; the other ends unfit with the reason."""
    first = receive(Record(paper.trust), two_slots(paper, 1, zeta="run", aux="run"), situation(paper)).record
    assert (first.slots["aux"].phase, first.slots["zeta"].last.reason) == ("fetch", "one-slot")
    main = receive(Record(paper.trust), two_slots(paper, 1, aux="run", main="run"), situation(paper)).record
    assert (main.slots["main"].phase, main.slots["aux"].last.verdict) == ("fetch", "unfit")
    got = receive(first, two_slots(paper, 2, aux="run", main="run"), situation(paper))
    assert (got.record.slots["aux"].phase, got.record.slots["main"].last.reason) == ("fetch", "one-slot")
    assert [name for name, command in got.commands if isinstance(command, Fetch)] == ["aux"]


def test_a_slot_that_leaves_makes_room_in_the_same_document(paper: Paper) -> None:
    """A model can be moved from one slot to another by one document; prefetching takes nobody's place."""
    record = receive(Record(paper.trust), two_slots(paper, 1, main="run"), situation(paper)).record
    moved = receive(record, two_slots(paper, 2, main="none", aux="run"), situation(paper)).record
    assert (moved.slots["main"].last.verdict, moved.slots["aux"].phase) == ("removed", "fetch")
    both = receive(record, two_slots(paper, 2, main="run", aux="prefetch"), situation(paper)).record
    assert both.slots["aux"].phase == "fetch"


def test_slots_do_not_pile_up(paper: Paper) -> None:
    """Slots that hold nothing are forgotten; a document that would make more than the manager reads is refused whole."""
    record = Record(paper.trust)
    for counter in range(1, 40):
        record = receive(record, two_slots(paper, counter, main="run", **{f"s{counter}": "none"}), situation(paper)).record
        record, _ = obey(record, paper.ack(counter, counter))
        assert len(record.slots) <= 2
    for counter in range(40, 60):
        record = receive(record, two_slots(paper, counter, **{f"s{counter}": "run"}), situation(paper)).record
    assert len(record.slots) == MAX_SLOTS
    assert record.counters["refused_desired.too-many-slots"] > 0
