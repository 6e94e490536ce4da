"""Downloads: they end in exactly one event, leave nothing behind, and nobody's noise puts off asking for what is missing."""

import functools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeops.parcel.stream import cut
from edgeops.wire.envelope import digest_of, seal
from edgeops.wire.errors import Rejected
from edgeops_agent.core.slot import Build, Done, Failed, Slot, Target
from edgeops_agent.shell.disk import StateFolder
from edgeops_agent.shell.downloads import Downloads
from edgeops_agent.shell.fetching import StreamFetch

from .conftest import Paper

BODIES = [os.urandom(100_000), os.urandom(90_000)]
BUILD = Build("a" * 64, "int8", "m", 1)


class Bench:
    """Downloads with ears that only note, and a clock that is set."""

    def __init__(self, root: Path) -> None:
        self.folder = StateFolder(root)
        self.folder.create()
        self.heard: set[str] = set()
        self.events: list[Any] = []
        self.at = 1000.0
        fetch, post = functools.partial(StreamFetch, self.folder), lambda slot, event: self.events.append((slot, event))
        self.all = Downloads(fetch, self, post, lambda: self.at)
        self.list, self.frames = cut("berlin", BODIES)
        self.listed = seal("stream", self.list.payload(), [Paper().keys["online"]])
        self.digest = digest_of(self.listed, "stream")
        self.target = Target(7, "run", build=BUILD, stream=self.digest, most_bytes=self.list.size)

    def subscribe(self, topic: str) -> None:
        """Listen."""
        self.heard.add(topic)

    def unsubscribe(self, topic: str) -> None:
        """The reverse."""
        self.heard.discard(topic)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """An empty folder."""
    return Bench(tmp_path / "state")


def test_a_whole_stream_is_done_once(bench: Bench) -> None:
    """After the last frame there is one Done, nobody listens any more and no partial file is left."""
    bench.all.begin("main", bench.target, bench.listed)
    assert bench.heard
    for index, data in enumerate(bench.frames):
        assert bench.all.frame(bench.digest, index, data)
    assert [(slot, type(event), event.order) for slot, event in bench.events] == [("main", Done, 7)]
    assert not bench.heard
    assert not list(bench.folder.partial.iterdir())
    assert not bench.all.frame(bench.digest, 0, bench.frames[0])


def test_neither_bad_nor_repeated_frames_put_off_asking(bench: Bench) -> None:
    """Somebody who sends bad or old frames every second cannot keep a device from asking for the rest."""
    bench.all.begin("main", bench.target, bench.listed)
    bench.all.frame(bench.digest, 0, bench.frames[0])
    asked = 0
    for _ in range(20):
        bench.at += 1.0
        with pytest.raises(Rejected, match="bad-frame"):
            bench.all.frame(bench.digest, 1, b"not the frame")
        bench.all.frame(bench.digest, 0, bench.frames[0])
        asked += len(bench.all.wants())
    assert asked >= 3


def test_a_download_ends_with_its_order(bench: Bench) -> None:
    """When the slot fetches something else or nothing, frames of the old stream change nothing any more."""
    bench.all.begin("main", bench.target, bench.listed)
    bench.all.keep({"main": Slot(phase="fetch", target=bench.target)})
    assert bench.heard
    bench.all.keep({"main": Slot(phase="idle", target=bench.target)})
    assert not bench.heard
    bench.all.begin("gone", bench.target, bench.listed)
    bench.all.keep({})
    assert not bench.heard
    assert not bench.all.wants()
    assert not bench.all.frame(bench.digest, 0, bench.frames[0])


def test_a_frame_the_disk_refuses_fails_the_order_by_name(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that finds no space ends in Failed(disk-full), and the partial file is gone."""
    bench.all.begin("main", bench.target, bench.listed)
    bench.all.frame(bench.digest, 0, bench.frames[0])
    real = os.open

    def full(path: Any, *rest: Any, **more: Any) -> int:
        if "partial" in str(path):
            raise OSError(28, "No space left on device")
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", full)
    bench.all.frame(bench.digest, 1, bench.frames[1])
    [(slot, event)] = bench.events
    assert (slot, type(event), event.reason, event.unfit) == ("main", Failed, "disk-full", False)
    assert not bench.heard
    assert not list(bench.folder.partial.iterdir())


def test_a_late_frame_is_no_attack_a_forged_one_is(bench: Bench) -> None:
    """A frame that comes after its stream is whole is let pass when its bytes are the signed ones, refused otherwise."""
    bench.all.check_late(bench.digest, 1, bench.frames[1], bench.listed)
    for listed, data, reason in ((bench.listed, b"junk", "bad-frame"), (None, bench.frames[1], "unknown-stream")):
        with pytest.raises(Rejected, match=reason):
            bench.all.check_late(bench.digest, 1, data, listed)


def test_a_damaged_list_fails_the_fetch(bench: Bench) -> None:
    """A stream list whose bytes changed on disk is not believed, and the order fails instead of fetching something else."""
    other = seal("stream", cut("berlin", [b"other"])[0].payload(), [Paper().keys["online"]])
    bench.all.begin("main", bench.target, other)
    assert [event.reason for _, event in bench.events] == ["bad-document"]


def test_a_list_of_more_than_the_release_says_is_not_fetched(bench: Bench) -> None:
    """Whatever the online key has listed, no frame is asked for beyond what the release keys have signed."""
    bench.all.begin("main", replace(bench.target, most_bytes=bench.list.size - 1), bench.listed)
    [(slot, event)] = bench.events
    assert (slot, type(event), event.reason) == ("main", Failed, "endless")
    assert not bench.heard and not bench.all.wants() and not list(bench.folder.partial.iterdir())
