"""The table of transitions: what operators may do in each status, and that late device events move nothing."""

import importlib.util
from pathlib import Path

import pytest

from edgeops.rollout import state as s
from edgeops.rollout.engine import step
from edgeops.rollout.transitions import TRANSITIONS, allowed
from edgeops.wire.errors import Misuse

_spec = importlib.util.spec_from_file_location("rollout_invariants", Path(__file__).with_name("invariants.py"))
inv = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(inv)

BEGUN = [s.Started(0, 20), s.DeviceStarted(0, 0)]
AT = {
    "pending": [],
    "running": BEGUN,
    "paused": [*BEGUN, s.Paused(1)],
    "halted": [*BEGUN, s.Tripped(1, "g")],
    "reverting": [*BEGUN, s.Aborted(1, "revert")],
    "finished": [*BEGUN, s.Advanced(1), s.Advanced(1), s.Advanced(1)],
    "aborted": [*BEGUN, s.Aborted(1, "keep")],
}
RESTING = [x for x in AT if x != "running"]
WORDS = {
    "start": s.Started(2, 20),
    "pause": s.Paused(2),
    "resume": s.Resumed(2),
    "advance": s.Advanced(2),
    "abort-keep": s.Aborted(2, "keep"),
    "abort-revert": s.Aborted(2, "revert"),
}


def reach(status):
    """A watched rollout in this status."""
    world = inv.Watched(step, inv.plan())
    for event in AT[status]:
        world.feed(event)
    return world


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("status", AT)
def test_the_table_says_what_operators_may_do(status, word):
    """Every pair of status and operator event either moves as the table says or is Misuse that names both."""
    world = reach(status)
    assert world.r.status == status
    if (status, word) not in TRANSITIONS:
        with pytest.raises(Misuse) as caught:
            world.feed(WORDS[word])
        assert caught.value.reason == "illegal-transition"
        assert f"is {status}: {word} is not possible" in caught.value.message
        return
    world.feed(WORDS[word])
    assert world.r.status == TRANSITIONS[status, word]
    assert word in allowed(status)


@pytest.mark.parametrize("status", RESTING)
def test_late_device_events_never_raise_nor_restart(status):
    """In a resting status device events change counters at most."""
    world = reach(status)
    for event in [s.DeviceStarted(3, 99), s.Outcome(3, -1, "committed"), s.Silence(3, 50, 4), s.DeviceStarted(3, 0), s.Tick(4)]:
        commands = world.feed(event)
        assert not any(isinstance(c, s.OpenWave | s.Recall) for c in commands)
        assert world.r.status == status
