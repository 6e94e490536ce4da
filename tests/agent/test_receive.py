"""What a device makes of a bundle: counters, offers, refusals, all in one new record."""

from dataclasses import replace

import pytest

from edgeops.wire.desired import SlotWish
from edgeops.wire.envelope import digest_of
from edgeops.wire.errors import Rejected
from edgeops.wire.messages import Bundle
from edgeops_agent.core.receive import MAX_SLOTS, Situation, obey, receive
from edgeops_agent.core.record import Record
from edgeops_agent.core.slot import Build, Fetch, Run, Slot

from .conftest import NOW, Paper, make_release

NONCE = "a" * 64
Y2038 = 2_147_483_000


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


def test_a_stream_list_holds_no_more_than_the_release_says(paper: Paper) -> None:
    """A list that came with the order or before it is counted: one byte more than signed refuses the whole order."""
    digest, release = paper.release(make_release())
    for size, taken in ((30, 7), (31, 0)):
        name, listed = paper.stream(size)
        order = paper.desired(7, digest, slots={"main": SlotWish("run", digest, "int8", name, "r1")})
        together: tuple[tuple[str, bytes], ...] = (("release", release), ("stream", listed), ("desired", order))
        for bundle, known in ((together, {}), (together[2:], {digest: release, name: listed})):
            got = receive(Record(paper.trust), Bundle(bundle), situation(paper, documents=known)).record
            assert (got.trust.counter, got.counters.get("refused_desired.endless", 0)) == (taken, taken == 0)
            assert not taken or got.slots["main"].target.most_bytes == 30


def test_an_order_without_its_stream_list_is_not_taken(paper: Paper) -> None:
    """It would fail, and that is final. Refused, it comes once more with the list, for the manager sees what a device lacks."""
    digest, release = paper.release(make_release())
    name, listed = paper.stream(30)
    order = paper.desired(7, digest, slots={"main": SlotWish("run", digest, "int8", name, "r1")})
    got = receive(Record(paper.trust), Bundle((("release", release), ("desired", order), ("stream", listed))), situation(paper))
    assert (got.commands, got.record.trust.counter) == ((), paper.trust.counter)
    assert "[missing-stream]" in got.refused[0]
    again = receive(got.record, Bundle((("stream", listed), ("release", release), ("desired", order))), situation(paper))
    [fetch] = [command for _, command in again.commands if isinstance(command, Fetch)]
    assert (fetch.target.stream, fetch.target.most_bytes) == (name, 30)


def test_a_kept_list_that_is_damaged_is_not_counted_with(paper: Paper) -> None:
    """Bytes on disk under the name of a list are believed only when they hash to it."""
    digest, release = paper.release(make_release())
    name, _ = paper.stream(30)
    order = paper.desired(7, digest, slots={"main": SlotWish("run", digest, "int8", name, "r1")})
    known = {digest: release, name: paper.stream(29)[1]}
    assert receive(Record(paper.trust), Bundle((("desired", order),)), situation(paper, documents=known)).refused


def test_unfit_release_ends_at_once_with_the_reason(paper: Paper) -> None:
    """A variant for another device class is answered with `unfit` before anything is fetched."""
    digest, release = paper.release(make_release(classes=("arm-dot",)))
    got = receive(Record(paper.trust), Bundle((("release", release), ("desired", paper.desired(3, digest)))), situation(paper))
    slot = got.record.slots["main"]
    assert slot.phase == "idle"
    assert slot.last is not None and (slot.last.verdict, slot.last.reason) == ("unfit", "device-class")
    assert not any(isinstance(command, Fetch) for _, command in got.commands)


def test_an_acknowledged_outcome_leaves_the_outbox_once(paper: Paper) -> None:
    """A new command empties the outbox of what its report told, not of what came after that; the same again changes nothing; an
    older one is a refused replay."""
    digest, release = paper.release(make_release(classes=("arm-dot",)))
    bundle = Bundle((("release", release), ("desired", paper.desired(3, digest))))
    new = receive(Record(paper.trust), bundle, situation(paper)).record
    assert [outcome.order for outcome in new.slots["main"].outbox] == [3]
    assert obey(new, paper.ack(1, 9))[0].slots["main"].outbox, "nobody can have heard of what is not stored"
    full = new.noted(2).noted(7)
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


def test_a_time_that_was_held_back_makes_nothing_look_younger(paper: Paper) -> None:
    """An answer kept for a day, with an order that was good when it was signed: the order has expired by now."""
    digest, release = paper.release(make_release())
    bundle = Bundle((("time", paper.time(NONCE)), ("release", release), ("desired", paper.desired(9, digest))))
    late = receive(Record(paper.trust), bundle, situation(paper, now=0, asked=100, tick=100 + 86_400))
    assert late.record.counters == {"refused_desired": 1, "refused_desired.expired": 1}
    assert receive(Record(paper.trust), bundle, situation(paper, now=0, asked=100, tick=101)).record.trust.counter == 9


def test_a_wrong_wall_clock_gives_way_to_a_signed_time(paper: Paper) -> None:
    """A device whose own clock stands in 2038 takes an order once the manager has answered, and counts on from the answer."""
    digest, release = paper.release(make_release())
    order = (("release", release), ("desired", paper.desired(9, digest)))
    far = situation(paper, now=Y2038, wall=Y2038)
    assert receive(Record(paper.trust), Bundle(order), far).record.counters["refused_desired.expired"] == 1
    got = receive(Record(paper.trust), Bundle((("time", paper.time(NONCE)), *order)), far)
    assert got.record.trust.counter == 9
    sure = receive(Record(paper.trust), Bundle((("time", paper.time(NONCE, NOW - 9999)), *order)), replace(far, sure=True))
    assert sure.record.counters["refused_desired.expired"] == 1


def test_a_raised_epoch_takes_2038_back(paper: Paper) -> None:
    """Time signed too late locks all orders out; a root with a raised epoch voids it, for this boot too and in the same bundle."""
    digest, release = paper.release(make_release())
    stuck = receive(Record(paper.trust), Bundle((("time", paper.time(NONCE, Y2038)),)), situation(paper)).record
    order = (("release", release), ("desired", paper.desired(9, digest, epoch=1)))
    later = situation(paper, now=Y2038, wall=NOW, sure=True)
    shut = receive(stuck, Bundle((("time", paper.time(NONCE)), ("desired", paper.desired(9, digest)))), later).record
    assert shut.counters["refused_time.time-floor"] == 1 and shut.trust.time_floor == Y2038
    freed = receive(stuck, Bundle((("root", paper.next_root(1)), *order)), later)
    assert (freed.anew, freed.time, freed.record.trust.counter, freed.record.trust.time_floor) == (True, None, 9, NOW - 500)
    same = receive(stuck, Bundle((("root", paper.next_root(0)), *order)), later)
    assert not same.anew and same.record.trust.time_floor == Y2038
    early = receive(Record(paper.trust), Bundle((("time", paper.time(NONCE, Y2038)), ("root", paper.next_root(1)))), later)
    assert early.time is None and early.record.trust.time_floor == NOW - 500


def test_an_unsure_record_takes_no_order_until_our_nonce_is_answered(paper: Paper) -> None:
    """Neither orders nor commands, replayed or new; then the answer names the least counter, and what is older stays refused."""
    digest, release = paper.release(make_release())
    record = Record(replace(paper.trust, counter=3), unsure=True)
    orders = {number: (("release", release), ("desired", paper.desired(number, digest))) for number in (4, 6, 7)}
    for number in orders:
        got = receive(record, Bundle(orders[number]), situation(paper)).record
        assert (got.trust.counter, got.counters["refused_desired.resync"]) == (3, 1)
    with pytest.raises(Rejected, match="resync"):
        obey(record, paper.ack(9, 9))
    foreign = receive(record, Bundle((("time", paper.time("b" * 64, counter=7)), *orders[7])), situation(paper)).record
    assert foreign.unsure and foreign.trust.counter == 3
    sure = receive(record, Bundle((("time", paper.time(NONCE, counter=7)),)), situation(paper)).record
    assert (sure.unsure, sure.trust.counter) == (False, 6)
    assert receive(sure, Bundle(orders[6]), situation(paper)).record.trust.counter == 6
    assert receive(sure, Bundle(orders[7]), situation(paper)).record.trust.counter == 7
    backup = receive(record, Bundle((("time", paper.time(NONCE, counter=1)),)), situation(paper)).record
    assert backup.trust.counter == 3


def test_sites_follow_each_other_beside_the_last_proven_one(paper: Paper) -> None:
    """A newer site is named beside the oldest one named, an older one refused; one already named may come again."""
    record = Record(paper.trust)
    first, second, third = (paper.site(number) for number in (1, 2, 3))
    for data in (first, second, third, second):
        got = receive(record, Bundle((("site", data),)), situation(paper))
        record = got.record
    assert record.sites == (digest_of(third, "site"), digest_of(first, "site"))
    assert record.counters == {"refused_site": 1, "refused_site.site-version": 1}
    assert receive(record, Bundle((("site", third),)), situation(paper)).site == third
    forged = Paper({**paper.keys, "site": paper.keys["online"]}).site(9)
    assert receive(record, Bundle((("site", forged),)), situation(paper)).record.counters["refused_site.unknown-key"] == 1


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
    assert not [command for _, command in got.commands if isinstance(command, Fetch)]  # what is being fetched goes on


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
        record, _ = obey(record.noted(counter - 1), paper.ack(counter, counter))
        assert len(record.slots) <= 2
    for counter in range(40, 60):
        record = receive(record, two_slots(paper, counter, **{f"s{counter}": "run"}), situation(paper)).record
    assert len(record.slots) == MAX_SLOTS
    assert record.counters["refused_desired.too-many-slots"] > 0


def after_the_theft(paper: Paper, record: Record) -> Record:
    """The record once the root of the next epoch has come."""
    return receive(record, Bundle((("root", paper.next_root(1)),)), situation(paper)).record


def test_a_raised_epoch_ends_what_the_old_one_began(paper: Paper) -> None:
    """What is being worked on ends cancelled, what is committed runs; nothing is known to be bad any more."""
    held = Build("c" * 64, "int8", "digits", 1)
    first, order = Record(paper.trust, {"main": Slot(current=held, bad=("x/r1",))}), two_slots(paper, 9, main="run")
    working = receive(first, order, situation(paper))
    tried = working.record.with_slot("main", replace(working.record.slots["main"], phase="trial", attempts=2))
    got = receive(tried, Bundle((("root", paper.next_root(1)),)), situation(paper))
    slot = got.record.slots["main"]
    assert (slot.phase, slot.current, slot.bad, slot.attempts, slot.order) == ("idle", held, (), 0, 0)
    assert [(outcome.order, outcome.verdict) for outcome in slot.outbox] == [(0, "cancelled")]
    assert got.commands[0] == ("main", Run(held))
    both = receive(first, Bundle((*order.documents, ("root", paper.next_root(1)))), situation(paper))
    assert not any(isinstance(command, Fetch) for _, command in both.commands)


def test_no_slot_of_an_older_epoch_keeps_out_an_order_of_the_new_one(paper: Paper) -> None:
    """A model a thief left in a slot of his own gives way to the one that is named; without a need, what runs goes on."""
    stolen = Slot(current=Build("c" * 64, "int8", "digits", 1), order=2**53 - 1)
    before = Record(replace(paper.trust, counter=2**53 - 1), {"x7f3": stolen})
    record = after_the_theft(paper, before)
    digest, release = paper.release(make_release())
    order = Bundle((("release", release), ("desired", paper.desired(1, digest, epoch=1))))
    got = receive(record, order, situation(paper))
    assert (got.record.slots["main"].phase, got.record.slots["x7f3"].last.verdict, got.refused) == ("fetch", "removed", ())
    assert next(command for name, command in got.commands if name == "x7f3") == Run(None)
    wish = {"main": SlotWish("prefetch", digest, "int8", "", "r1")}
    order = Bundle((("release", release), ("desired", paper.desired(1, digest, epoch=1, slots=wish))))
    beside = receive(record, order, situation(paper))
    assert beside.record.slots["x7f3"].current == stolen.current
    unfit, other = paper.release(make_release(classes=("arm-dot",)))
    order = Bundle((("release", other), ("desired", paper.desired(1, unfit, epoch=1))))
    vain = receive(record, order, situation(paper)).record.slots
    assert vain["x7f3"].current == stolen.current and vain["main"].last.reason == "device-class"


def test_slots_a_thief_has_filled_make_room_after_the_epoch(paper: Paper) -> None:
    """Sixteen slots that fetch what never comes, or hold outcomes nobody takes: the first new order finds its place."""
    many = two_slots(paper, 5, **{f"y{n}": "prefetch" for n in range(MAX_SLOTS)})
    full = receive(Record(paper.trust), many, situation(paper)).record
    assert len(full.slots) == MAX_SLOTS
    digest, release = paper.release(make_release())
    order = (("release", release), ("desired", paper.desired(1, digest, epoch=1)))
    late = receive(after_the_theft(paper, full), Bundle(order), situation(paper))
    at_once = receive(full, Bundle((("root", paper.next_root(1)), *order)), situation(paper))
    for got in (late, at_once):
        assert not got.refused and set(got.record.slots) == {"main"} and got.record.slots["main"].phase == "fetch"
