"""A committed build that cannot run: back to the one before, and not tried again under one order, unless only its bytes failed."""

from dataclasses import replace

import pytest

from edgeops_agent.core.slot import Build, Fetch, Lost, Offered, Slot, Target
from edgeops_agent.core.update import step

OLD, NEW = Build("a" * 64, "fp32", "m", 1), Build("b" * 64, "fp32", "m", 2)
ORDER = Target(7, "run", "r1", NEW)
COMMITTED = Slot(current=NEW, previous=OLD, target=ORDER, order=7)


def again(slot: Slot, rollout: str = "r1"):
    """The same build ordered once more; the new state and the commands' types."""
    after, commands = step(slot, Offered(replace(ORDER, order=8, rollout=rollout), 100))
    return after, {type(command) for command in commands}


@pytest.mark.parametrize("reason", ["crashed:SIGSEGV", "call-timeout", "memory", "load-failed"])
def test_what_could_not_run_is_not_tried_again(reason):
    """It fell back; the same order once more ends as known-bad and fetches nothing; another rollout is another chance."""
    fallen, _ = step(COMMITTED, Lost(NEW.release, 50, reason))
    assert (fallen.current, fallen.last.verdict, fallen.last.reason) == (OLD, "failed", reason)
    after, commands = again(fallen)
    assert (after.phase, after.current, after.last.reason) == ("idle", OLD, "known-bad") and Fetch not in commands
    after, commands = again(fallen, "r2")
    assert after.phase == "fetch" and Fetch in commands


@pytest.mark.parametrize("reason", ["bad-object", "missing-object", "bad-document", "missing-document"])
def test_what_was_damaged_is_fetched_again(reason):
    """Bytes that rotted on the disk say nothing of the release."""
    fallen, _ = step(COMMITTED, Lost(NEW.release, 50, reason))
    after, commands = again(fallen)
    assert fallen.current == OLD and after.phase == "fetch" and Fetch in commands


def test_the_only_build_is_not_blamed():
    """Where there is none before it, a model that may run again is better than none for ever."""
    fallen, _ = step(replace(COMMITTED, previous=None), Lost(NEW.release, 50, "crashed:SIGSEGV"))
    after, commands = again(fallen)
    assert fallen.current is None and after.phase == "fetch" and Fetch in commands


def test_an_older_build_is_not_blamed_for_the_order_after_it():
    """The order at hand is for another build than the one that was lost: that one stays open to it."""
    slot = replace(COMMITTED, current=OLD, previous=None, phase="fetch")
    fallen, _ = step(slot, Lost(OLD.release, 50, "crashed:SIGSEGV"))
    assert fallen.bad == () and fallen.phase == "fetch"
