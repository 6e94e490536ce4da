"""Gates: a slot that waits is told what it must know, once, and again when one of its conditions has changed."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from edgeops.wire.conditions import Conditions, Fact
from edgeops_agent.core.record import Record
from edgeops_agent.core.slot import Build, Slot, Target
from edgeops_agent.shell.clock import Clock
from edgeops_agent.shell.consent import Answer, Consent
from edgeops_agent.shell.gates import Gates

from .conftest import Paper

NEW = Build("b" * 64, "int8", "digits", 2)
TERMS = Conditions(("!metered",), ("parked", "consent"), ("online",), "cell")


class Owner:
    """A device whose facts are set by the test."""

    def __init__(self) -> None:
        self.facts: dict[str, Fact] = {}
        self.waiting = False

    def start(self) -> None:
        """Begin looking."""

    def stop(self) -> None:
        """Look no more."""

    def latest(self) -> Mapping[str, Fact]:
        """As they are now."""
        return self.facts

    def eager(self, waiting: bool) -> None:
        """Note it."""
        self.waiting = waiting


class Place:
    """Gates of one slot."""

    def __init__(self, root: Path) -> None:
        self.owner, self.consent, self.online = Owner(), Consent(root), False
        self.gates = Gates(self.owner, self.consent, Clock(0), lambda: self.online)

    def told(self, phase: str, conditions: Conditions = TERMS) -> list[dict[str, Fact]]:
        """The facts that a slot in `phase` is told now."""
        slot = Slot(phase, target=Target(7, "run", "r", NEW, conditions=conditions), order=7, deadline=99)
        news = self.gates.news(Record(Paper().trust, {"main": slot}))
        return [dict(sensed.facts) for name, sensed in news if name == "main"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Nothing is known yet."""
    return Place(tmp_path)


def test_once_and_again_when_a_condition_has_changed(place: Place) -> None:
    """Facts nobody waits for are no news; a condition that begins or ceases to hold is; so is a question of the slot itself."""
    assert len(place.told("waiting")) == 1 and place.told("waiting") == []
    assert place.gates.waits == {"main": ("!metered",)} and place.owner.waiting
    place.owner.facts = {"temperature_c": 40}
    assert place.told("waiting") == []
    place.owner.facts = {"metered": False, "temperature_c": 41}
    assert place.told("waiting") == [{"metered": False, "temperature_c": 41, "online": False}]
    assert place.gates.waits == {"main": ()}
    place.owner.facts = {"metered": True}
    assert len(place.told("fetch")) == 1
    place.gates.ask("main")
    assert len(place.told("fetch")) == 1 and place.told("fetch") == []


def test_consent_is_for_the_order_at_hand(place: Place) -> None:
    """An answer for the order before is none; yes and no are told as soon as they are given."""
    place.told("ready")
    place.consent.give("main", Answer(0, 6, NEW.release, "approve", 1))
    assert place.told("ready") == []
    place.consent.give("main", Answer(0, 7, NEW.release, "approve", 1))
    assert [facts["consent"] for facts in place.told("ready")] == ["yes"]
    place.consent.give("main", Answer(0, 7, NEW.release, "deny", 1))
    assert [facts["consent"] for facts in place.told("ready")] == ["no"]


def test_whether_the_manager_is_heard(place: Place) -> None:
    """A commit that must not happen offline is told when the link is up."""
    assert [facts["online"] for facts in place.told("proven")] == [False]
    place.online = True
    assert [facts["online"] for facts in place.told("proven")] == [True]


def test_who_waits_for_nothing_is_told_nothing(place: Place) -> None:
    """A fetch without conditions, a trial, a slot at rest: nothing is said, and nobody looks more often for them."""
    assert place.told("fetch", Conditions()) == place.told("trial") == place.told("idle") == []
    assert place.gates.waits == {} and not place.owner.waiting
