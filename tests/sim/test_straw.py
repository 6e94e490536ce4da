"""What a straw says and keeps: trials by port, its share of the shelf, nothing invented."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeops.parcel.stream import cut
from edgeops.wire import topics
from edgeops.wire.errors import Rejected, Unfit
from edgeops.wire.keys import sha256
from edgeops.wire.messages import Presence, open_report
from edgeops_agent.core.health import Evidence, Verdict, judge
from edgeops_agent.core.slot import Target
from edgeops_agent.sim.kept import Cupboard, Files, Shelf, ShelfFetch
from edgeops_agent.sim.memory import MemoryFolder
from edgeops_agent.sim.ports import untouched

from .world import CALM, Founded, World

BODIES = [b"a" * 100, b"", bytes(range(256)) * 10, b"z"]


@pytest.fixture
def world(small: Founded, worlds: Callable[..., World]) -> World:
    """Six straws that run release 1, online, in fine weather."""
    made = worlds(small, 0, CALM)
    made.begin()
    made.air.run(3.0)
    return made


def test_a_trial_fails_as_the_port_says(world: World) -> None:
    """A candidate that fails its trial is rolled back, halts the rollout with its reason, and runs on no other straw, ever."""
    bad, ran = world.releases[2], set()

    def verdict(name: str, target: Target, elapsed_s: float) -> Verdict:
        ran.add(name)
        return Verdict(True, "error-rate", "9 of 10 calls failed")

    world.verdicts = verdict
    rollout = world.start(2)
    assert world.until(lambda: world.status(rollout) == "halted", 60)
    world.air.run(world.clock.at + 60)
    assert len(ran) == 1
    assert world.whole(1) == len(world.straws)
    (row,) = [row for row in world.fleet.show(rollout)["devices"] if row["verdict"]]
    assert (row["device"], row["verdict"], row["reason"]) == (ran.pop(), "rolled-back", "error-rate")
    assert bad not in {build.release for made in world.straws.values() for build in made.running.values()}


def test_a_retained_order_that_was_taken_away_is_no_refused_message(world: World) -> None:
    """Zero bytes on `dn/desired` are how a broker says that nothing is retained any more."""
    name, made = next(iter(world.straws.items()))
    before = made.record
    for noun, refused in (("desired", 0), ("doc", 1)):
        made.take(topics.down(name, noun), b"")
        assert made.record.counters.get("refused_message", 0) - before.counters.get("refused_message", 0) == refused


def test_a_trial_passes_as_the_port_says(world: World) -> None:
    """With evidence of calls from the port a trial ends as proven, not before its window is over."""
    world.called = True
    world.verdicts = lambda name, target, elapsed: judge(target, Evidence(calls=50), elapsed)
    rollout, began = world.start(2), world.clock.at
    assert world.until(lambda: world.status(rollout) == "finished", 60)
    assert world.clock.at - began >= 2 * 4
    assert world.fleet.show(rollout)["counts"]["committed"] == len(world.straws)


def test_nobody_calls_a_straw() -> None:
    """The default verdict waits for the window and then is unproven, whatever the order's limits are."""
    for target in (Target(1, "run", trial_s=60), Target(1, "run", trial_s=60, min_calls=100), Target(1, "run", trial_s=0)):
        assert target.trial_s == 0 or not untouched(target, 59.9).over
        verdict = untouched(target, 60.0)
        assert (verdict.over, verdict.reason, verdict.unproven) == (True, "", True)


def test_the_manager_is_told_that_they_are_straws(world: World) -> None:
    """Birth facts say `simulated: true`, and no telemetry ever comes."""
    world.until(lambda: False, 60)
    with world.hub.store.read() as tx:
        facts = {row[0] for row in tx.exec_driver_sql("select facts from devices")}
    assert facts == {'{"simulated": true}'}
    assert set(world.fleet.ingest.counts) == {"presence", "state"}


def test_a_goodbye_is_signed(world: World) -> None:
    """The farewell is a verified goodbye of this boot."""
    made = world.straws["straw-00"]
    _, sealed = made.farewell()
    told = Presence.parse(open_report(sealed, "presence", made.signer.public))
    assert (told.kind, told.boot, told.device) == ("goodbye", made.boot_id, "straw-00")


def test_a_full_shelf_fails_the_order_and_nothing_else(small: Founded, worlds: Callable[..., World]) -> None:
    """No room for the candidate: the order fails as disk-full, release 1 goes on, not a byte more is held."""
    world = worlds(small, 0, CALM, shelf=200_000)
    world.begin()
    world.air.run(3.0)
    rollout = world.start(2)
    assert world.until(lambda: world.status(rollout) == "halted", 60)
    world.air.run(world.clock.at + 5)
    reasons = {row["reason"] for row in world.fleet.show(rollout)["devices"]}
    assert reasons == {"", "disk-full"}
    assert world.whole(1) == len(world.straws)
    assert world.shelf.bytes_held <= 200_000


def cupboards(shelf: Shelf, count: int) -> list[Cupboard]:
    """Some straws' cupboards on one shelf."""
    return [Cupboard(MemoryFolder(), shelf) for _ in range(count)]


def test_bytes_are_shared_and_progress_is_not() -> None:
    """What one straw has received is one copy for all, counts for no other, and goes with its last holder."""
    stream, frames = cut("berlin", BODIES, 64)
    shelf = Shelf(1 << 20)
    one, two = cupboards(shelf, 2)
    for each in (one, two):
        fetch = ShelfFetch(each, "s", stream)
        assert not fetch.progress.have
        assert [fetch.feed(index, data) for index, data in enumerate(frames)][-1]
        fetch.finish()
        assert shelf.bytes_held == sum(map(len, BODIES))
        assert ShelfFetch(each, "s", stream).progress.done
    one.sweep((), ())
    assert two.read(sha256(BODIES[0]), 100) == BODIES[0]
    two.sweep((), ())
    assert shelf.bytes_held == 0


def test_frames_kept_from_before_count_only_if_whole() -> None:
    """After a cut the frames received so far are not asked for again, but a damaged one is; dropped, they are gone."""
    stream, frames = cut("berlin", BODIES, 64)
    bodies: dict[str, bytes] = {}
    (kept,) = cupboards(Shelf(1 << 20, bodies), 1)
    fetch = ShelfFetch(kept, "s", stream)
    for index in (0, 1, 5):
        assert not fetch.feed(index, frames[index])
    bodies[stream.frames[5]] = b"rotten"
    again = ShelfFetch(kept, "s", stream)
    assert again.progress.have == 0b11
    with pytest.raises(Rejected, match="bad-frame"):
        again.feed(5, b"rotten")
    for index, data in enumerate(frames):
        again.feed(index, data)
    again.finish()
    assert [kept.read(sha256(body), len(body)) for body in BODIES] == BODIES
    third = ShelfFetch(kept, "t", cut("berlin", [b"new"], 64)[0])
    third.feed(0, b"new")
    third.drop()
    assert sha256(b"new") not in bodies


def test_a_shelf_in_a_folder(tmp_path: Path) -> None:
    """Bytes in files come back after a restart for whom they belong to; leavings go; what rots is noticed and dropped."""
    good, left = sha256(b"good"), sha256(b"left")
    shelf = Shelf(1 << 20, Files(tmp_path / "shelf"))
    shelf.hold(good, b"good")
    shelf.hold(left, b"left")
    again = Shelf(1 << 20, Files(tmp_path / "shelf"))
    again.hold(good)
    again.tidy()
    assert list(again) == [good] == [path.name for path in (tmp_path / "shelf").iterdir()]
    (kept,) = cupboards(again, 1)
    kept.put(good, 4, b"good")
    (tmp_path / "shelf" / good).write_bytes(b"baad")
    with pytest.raises(Rejected, match="bad-object"):
        kept.read(good, 4)
    assert good not in again and not kept.has(good)
    kept.put(good, 4, b"good")
    assert kept.read(good, 4) == b"good"


def test_a_shelf_has_an_end() -> None:
    """More than the limit is refused as a full disk is, and changes nothing."""
    shelf = Shelf(10)
    shelf.hold("a", b"123456")
    with pytest.raises(Unfit, match="disk-full"):
        shelf.hold("b", b"12345")
    assert (shelf.bytes_held, "b" in shelf) == (6, False)
