"""Bit rot: found by a slow look, mended by what the manager sends, and nothing that rotted is ever loaded."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgeops.parcel.assembly import wanted
from edgeops_agent.core.record import Record
from edgeops_agent.core.slot import Build, Slot
from edgeops_agent.shell import builds
from edgeops_agent.shell.disk import StateFolder
from edgeops_agent.shell.documents import Documents
from edgeops_agent.shell.journal import Sparing
from edgeops_agent.shell.ledger import Ledger
from edgeops_agent.shell.mending import Mending
from edgeops_agent.shell.scrub import CALM_S, ROUND_S, STEP_S

from ..crash.desk import Model, first_trust, model


def build_of(made: Model) -> Build:
    """What a slot holds of it."""
    return Build(made.digest, "fp32", "m", made.version, stream=made.stream)


class Home:
    """A device that runs version 2 and could go back to version 1; time is set, frames come when asked for."""

    def __init__(self, root: Path) -> None:
        self.folder = StateFolder(root)
        self.folder.create()
        self.models = {version: model(version) for version in (1, 2)}
        for made in self.models.values():
            for digest, body in made.objects.items():
                self.folder.put(digest, len(body), body)
            self.folder.put_document(made.digest, made.release)
            self.folder.put_document(made.stream, made.listed)
        self.slot = Slot(current=build_of(self.models[2]), previous=build_of(self.models[1]), order=2)
        self.folder.save(Record(first_trust(), {"main": self.slot}))
        self.ledger = Ledger(self.folder)
        self.heard: list[str] = []
        self.mended: list[tuple[str, Build]] = []
        self.at = 0.0
        documents = Documents(self.folder, self.ledger.record, Sparing())
        self.mending = Mending(
            self.folder, self.ledger, documents, self, lambda slot, build: self.mended.append((slot, build)), lambda: self.at
        )

    def subscribe(self, topic: str) -> None:
        """Listen."""
        self.heard.append(topic)

    def unsubscribe(self, topic: str) -> None:
        """The reverse."""
        self.heard.remove(topic)

    def live(self, seconds: float) -> None:
        """Time passes; whatever is asked for is sent."""
        until = self.at + seconds
        while self.at < until:
            self.at += STEP_S
            self.mending.look()
            for want in self.mending.wants():
                made = next(one for one in self.models.values() if one.stream == want.stream)
                for index in wanted(want.bits, len(made.frames)):
                    self.mending.downloads.frame(want.stream, index, made.frames[index])

    def objects(self) -> Iterator[Path]:
        """Every object of both builds."""
        yield from sorted(self.folder.objects.iterdir())


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Nothing has rotted yet."""
    return Home(tmp_path / "state")


def flip(path: Path) -> None:
    """One bit."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :])


def test_nothing_is_looked_at_in_a_hurry(home: Home) -> None:
    """The first round begins ten minutes after the start and the next a day later; without rot nothing is fetched."""
    home.live(CALM_S - 2 * STEP_S)
    assert home.mending.scrub.rounds == 0
    home.live(60)
    assert home.mending.scrub.rounds == 1
    home.live(ROUND_S - 120)
    assert home.mending.scrub.rounds == 1
    home.live(120)
    assert home.mending.scrub.rounds == 2 and not home.mended and not home.heard


@pytest.mark.parametrize("damage", ["flipped", "gone", "short", "empty"])
def test_any_damaged_object_is_found_and_fetched(home: Home, damage: str) -> None:
    """Each object of the current and of the previous build, the manifests too, is whole again a day later at most."""
    for path in list(home.objects()):
        if damage == "flipped":
            flip(path)
        elif damage == "gone":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:7] if damage == "short" else b"")
        home.live(ROUND_S + 60)
        for build in (home.slot.current, home.slot.previous):
            assert build
            builds.check(home.folder, build)
        assert home.mended and not home.heard, path.name
    assert home.ledger.record.counters["objects_damaged"] == len(list(home.objects()))


def test_a_damaged_object_is_not_there_until_it_is_mended(home: Home) -> None:
    """While the manager is away nothing can load it, and the rest stays as it is."""
    target = next(home.objects())
    flip(target)
    home.mending.downloads.frame = lambda *_: False  # type: ignore[method-assign]
    home.live(CALM_S + 60)
    assert not target.exists() and not home.mended


def test_damaged_documents_are_written_anew(home: Home) -> None:
    """The release and the stream list, of which a good copy is in memory, do not keep an object from being mended."""
    for name in (home.models[2].digest, home.models[2].stream):
        flip(home.folder.documents / name)
    flip(home.folder.objects / next(iter(home.models[2].objects)))
    home.live(CALM_S + 60)
    assert ("main", home.slot.current) in home.mended
    assert home.folder.document(home.models[2].stream) == home.models[2].listed


def test_a_swept_object_is_no_rot(home: Home) -> None:
    """What no build needs any more may vanish between two steps."""
    home.at = CALM_S
    home.live(2 * STEP_S)
    home.ledger.store(Record(first_trust(), {"main": Slot()}))
    for path in home.objects():
        path.unlink()
    home.live(60)
    assert "objects_damaged" not in home.ledger.record.counters


@pytest.mark.parametrize("stream", ["none", "unreadable"])
def test_what_cannot_be_mended_is_left(home: Home, stream: str) -> None:
    """An older agent kept no stream list, or its file cannot be read: it is said, and the agent goes on."""
    build = build_of(home.models[2])
    if stream == "none":
        build = replace(build, stream="")
        home.ledger.store(home.ledger.record.with_slot("main", replace(home.slot, current=build)))
    else:
        (home.folder.documents / build.stream).unlink()
        (home.folder.documents / build.stream).mkdir()
    home.mending._begin("main", build)
    assert not home.mending.wants()
