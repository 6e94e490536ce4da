"""What the log says of orders: each comes, each phase, each end, once, with fields for programs."""

from dataclasses import replace
from typing import Any

from edgeops.wire.conditions import Conditions
from edgeops_agent.core.slot import (
    Build,
    Done,
    Event,
    Failed,
    Lost,
    Offered,
    Restarted,
    Sensed,
    Slot,
    Target,
    Voided,
)  # fmt: skip
from edgeops_agent.core.update import step
from edgeops_agent.shell import chronicle
from edgeops_agent.shell.logline import EVENTS, LEVELS, Line

ONE = Build("1" * 64, "int8", "digits", 1)
TWO = replace(ONE, release="2" * 64, version=2)


def tale(made: Any, slot: Slot, *events: Event) -> list[Line]:
    """The lines of one life."""
    told: list[Line] = []
    for event in events:
        after, _ = step(slot, event)
        told += made.changes({"main": slot}, {"main": after}, 0.0)
        slot = after
    assert {line.event for line in told} <= EVENTS.keys() and {line.level for line in told} <= set(LEVELS)
    return told


def ordered(order: int = 7, build: Build | None = TWO, **more: Any) -> Offered:
    """An order."""
    return Offered(Target(order, "run" if build else "none", "r-1", build, **more), 0)


WORK = [Done(phase, 7, 1) for phase in ("fetch", "verify", "install")]


def test_a_good_order_is_told_from_its_coming_to_its_commit() -> None:
    """One line for the order, one for each phase, one for the end."""
    check_good(chronicle)


def check_good(made: Any) -> None:
    """The same, for a copy of the module too."""
    told = tale(made, Slot(current=ONE), ordered(), *WORK, Done("trial", 7, 1))
    assert [line.text for line in told] == [
        "slot main: order 7 to run digits:2 (r-1)", "slot main: digits:2 fetch", "slot main: digits:2 verify",
        "slot main: digits:2 install", "slot main: digits:2 trial", "slot main: digits:2 committed (r-1); runs digits:2",
    ]  # fmt: skip
    assert told[-1].fields["verdict"] == "committed" and told[-1].fields["order"] == 7 and told[-1].level == "info"
    assert [line.fields.get("phase") for line in told[1:5]] == ["fetch", "verify", "install", "trial"]
    assert all(line.fields["slot"] == "main" and line.fields["rollout"] == "r-1" for line in told)


def test_a_rollback_is_told_with_its_reason() -> None:
    """As a warning, twice: when it begins, and how the order ended."""
    check_bad(chronicle)


def check_bad(made: Any) -> None:
    """The same, for a copy of the module too."""
    failed = Failed("trial", 7, 1, "error-rate", "8 of 10 calls")
    told = tale(made, Slot(current=ONE), ordered(), *WORK, failed, Done("rollback", 7, 2))[-2:]
    assert [line.text for line in told] == [
        "slot main: digits:2 rollback (error-rate)",
        "slot main: digits:2 rolled-back (r-1): error-rate, 8 of 10 calls; runs digits:1",
    ]
    assert [line.level for line in told] == ["warn", "warn"] and told[0].fields["reason"] == "error-rate"


def test_waiting_is_a_phase_too() -> None:
    """Somebody who looks learns what the device is waiting for."""
    patient = ordered(conditions=Conditions(activate=("consent",)))
    told = tale(chronicle, Slot(current=ONE), patient, *WORK, Sensed({"consent": "yes"}, 2))
    assert [line.fields.get("phase") for line in told[-2:]] == ["ready", "trial"]


def test_a_loss_a_removal_and_a_restart_are_told() -> None:
    """What was committed fell; the slot was emptied; work began anew."""
    assert "digits:1 failed: gone" in tale(chronicle, Slot(current=ONE), Lost(ONE.release, 0, "gone"))[0].text
    assert [line.text for line in tale(chronicle, Slot(current=ONE), ordered(build=None))] == [
        "slot main: order 7 to hold nothing (r-1)", "slot main: order 7 removed (r-1); runs no model",
    ]  # fmt: skip
    again = tale(chronicle, Slot(current=ONE), ordered(), *WORK, Restarted(0))[-1]
    assert again.fields["was"] == "trial" and again.fields["phase"] == "fetch" and again.fields["attempts"] == 1


def test_outcomes_that_a_raised_epoch_renumbers_are_not_told_again() -> None:
    """They are the same outcomes."""
    slot, _ = step(Slot(current=ONE), Lost(ONE.release, 0, "gone"))
    assert slot.outbox and not tale(chronicle, slot, Voided())


def test_a_slot_that_is_forgotten_is_told() -> None:
    """A line, since nothing of it is left to look at."""
    (line,) = chronicle.changes({"aux": Slot(current=ONE)}, {}, 0.0)
    assert line.fields == {"slot": "aux", "phase": "gone"}
