"""Frames: broadcast once to many, repaired to one, never sent to who may not have them."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from manager_house import Clock, Fleet

from edgeops.manager import streams
from edgeops.manager.conduct import release_row
from edgeops.manager.deliver import HOUR_S, MOST_COPIES, SPARE_FRAMES, Delivery
from edgeops.manager.hub import Hub
from edgeops.parcel.assembly import Progress
from edgeops.wire import topics
from edgeops.wire.keys import sha256
from edgeops.wire.messages import Want

PATIENCE_S = 10.0


@pytest.fixture
def fleet(hub: Hub, clock: Clock) -> Fleet:
    """Three devices that are wished to run a release of five frames."""
    object.__setattr__(hub.settings, "frames_per_s", 100_000)
    made = Fleet(hub, clock, ["a", "b", "c"])
    made.births()
    made.publish(1, size=5 * topics.FRAME_BYTES - 1000)
    made.start()
    return made


@pytest.fixture
def sending(fleet: Fleet) -> Iterator[Fleet]:
    """The same with its delivery running."""
    thread = threading.Thread(target=fleet.delivery.run)
    thread.start()
    yield fleet
    fleet.delivery.stop()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def stream_of(fleet: Fleet) -> streams.Stream:
    """The stream of the release."""
    digest = fleet.show("r-20300317-1")["delivery"][0]["stream"]
    with fleet.hub.store.read() as tx:
        found = streams.load(tx, digest)
    assert found
    return found


def until(true: Callable[[], bool]) -> None:
    """Poll with a deadline."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def want(fleet: Fleet, name: str, stream: streams.Stream, have: int = 0) -> None:
    """A device misses every frame not in `have`."""
    fleet.up(name, "want", Want(stream.digest, Progress(stream.list, have).missing()).encode())


def test_frames_are_read_across_objects(fleet: Fleet) -> None:
    """Frames cut from the object store are the ones the signed list names, also where they span objects."""
    stream = stream_of(fleet)
    assert len(stream.list.frames) == 5 and len(stream.list.objects) == 4
    for index, digest in enumerate(stream.list.frames):
        assert sha256(streams.frame_bytes(fleet.hub.blobs, stream.list, index)) == digest


def test_what_many_want_is_broadcast_once(sending: Fleet) -> None:
    """Three devices want everything: each frame is published once on the channel, and that is counted."""
    stream = stream_of(sending)
    for name in "abc":
        want(sending, name, stream)
    until(lambda: sending.show("r-20300317-1")["delivery"][0]["published"] == 5)
    assert Counter(topic for topic, _, _ in sending.frames) == {topics.frame("all", stream.digest, i): 1 for i in range(5)}
    assert {qos for _, _, qos in sending.frames} == {0}
    assert all(sha256(body) == stream.list.frames[topics.parse(topic).frame] for topic, body, _ in sending.frames)  # type: ignore[union-attr]


def test_what_one_misses_goes_to_it_alone(sending: Fleet) -> None:
    """A frame only one device wants is sent on its own topic with stream digest and number in front."""
    stream = stream_of(sending)
    want(sending, "a", stream, have=0b00111)
    want(sending, "b", stream, have=0b01111)
    until(lambda: len(sending.frames) == 2)
    by_topic = {topic: body for topic, body, _ in sending.frames}
    assert set(by_topic) == {topics.down("a", "blk"), topics.frame("all", stream.digest, 4)}
    repair = by_topic[topics.down("a", "blk")]
    assert repair[:32].hex() == stream.digest and int.from_bytes(repair[32:36], "big") == 3
    assert sha256(repair[36:]) == stream.list.frames[3]


def test_a_want_that_comes_during_the_sending_is_served_by_it(fleet: Fleet) -> None:
    """A frame broadcast after a third device's want came is not sent again for that device."""
    stream, late = stream_of(fleet), threading.Event()

    def publish(topic: str, payload: bytes, qos: int) -> bool:
        if not late.is_set():
            late.set()
            fleet.delivery.want("c", Want(stream.digest, Progress(stream.list).missing()))
        fleet.frames.append((topic, payload, qos))
        return True

    fleet.delivery = Delivery(fleet.hub, publish)
    for name in "ab":
        fleet.delivery.want(name, Want(stream.digest, Progress(stream.list).missing()))
    thread = threading.Thread(target=fleet.delivery.run)
    thread.start()
    until(lambda: len(fleet.frames) == 5)
    time.sleep(0.2)
    fleet.delivery.stop()
    thread.join(PATIENCE_S)
    assert Counter(topic for topic, _, _ in fleet.frames) == {topics.frame("all", stream.digest, i): 1 for i in range(5)}


def test_a_refused_publish_is_tried_again(fleet: Fleet) -> None:
    """A full queue delays a frame and loses none."""
    stream, refusals = stream_of(fleet), iter([False, False, True])

    def publish(topic: str, payload: bytes, qos: int) -> bool:
        done = next(refusals, True)
        if done:
            fleet.frames.append((topic, payload, qos))
        return done

    fleet.delivery = Delivery(fleet.hub, publish)
    fleet.delivery.want("a", Want(stream.digest, Progress(stream.list).missing()))
    thread = threading.Thread(target=fleet.delivery.run)
    thread.start()
    until(lambda: len(fleet.frames) == 5)
    fleet.delivery.stop()
    thread.join(PATIENCE_S)
    assert [int.from_bytes(body[32:36], "big") for _, body, _ in fleet.frames] == [0, 1, 2, 3, 4]


def test_nobody_gets_what_it_is_not_wished_to_have(hub: Hub, clock: Clock) -> None:
    """Wants for unknown streams, for streams of others, or of a wrong size are refused."""
    fleet = Fleet(hub, clock, ["a", "b"])
    fleet.births()
    fleet.publish(1)
    fleet.start(to="id=a")
    stream = stream_of(fleet)
    want(fleet, "b", stream)
    fleet.up("a", "want", Want("0" * 64, b"\xff").encode())
    fleet.up("a", "want", Want(stream.digest, b"\xff" * 9).encode())
    assert fleet.ingest.counts == {"presence": 2, "refused.unknown-stream": 2, "refused.malformed": 1}


def test_a_variant_has_one_stream(fleet: Fleet) -> None:
    """Cutting again gives the same signed list, so devices of later rollouts share it."""
    first = stream_of(fleet)
    with fleet.hub.store.write() as tx:
        release = fleet.show("r-20300317-1")["release"]
        variant = release_row(tx, release).variants["base"]
        assert streams.ensure(fleet.hub, tx, release, "base", variant) == first.digest


def test_who_wants_the_same_again_and_again_is_refused(sending: Fleet) -> None:
    """A device that takes every frame time after time runs out; the others still get theirs, and so does it after an hour."""
    stream = stream_of(sending)
    copies = MOST_COPIES + -(-SPARE_FRAMES // 5)
    for copy in range(1, copies + 1):
        want(sending, "a", stream)
        until(lambda copy=copy: len(sending.frames) == 5 * copy)  # type: ignore[misc]
    want(sending, "a", stream)
    assert sending.ingest.counts["refused.want-budget"] == 1
    want(sending, "b", stream)
    until(lambda: sum(topic.split("/")[4] == "b" for topic, _, _ in sending.frames) == 5)
    sending.delivery._taken_since -= HOUR_S
    want(sending, "a", stream)
    assert sending.ingest.counts["refused.want-budget"] == 1


def test_what_a_device_may_go_back_to_can_be_mended(hub: Hub, clock: Clock) -> None:
    """The stream of the release before may still be wanted: its bytes may have rotted on the device."""
    fleet = Fleet(hub, clock, ["a", "b"])
    fleet.births()
    release = fleet.publish(1)
    rollout = fleet.start()
    before = stream_of(fleet)
    for name in ("a", "b"):
        fleet.commit(name, rollout, release)
    fleet.publish(2)
    fleet.start(2, to="id=a")
    want(fleet, "a", before)
    assert "refused.unknown-stream" not in fleet.ingest.counts
