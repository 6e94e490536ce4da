"""Whole rollouts over simulated fleets: healthy ones finish, harmful ones stop early, the same seed gives the same run."""

import importlib.util
from pathlib import Path

from edgeops.rollout.engine import step

_spec = importlib.util.spec_from_file_location("rollout_invariants", Path(__file__).with_name("invariants.py"))
inv = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(inv)


def touched(world) -> int:
    """Devices that started the release."""
    return sum(w.started for w in world.r.waves)


def test_a_healthy_release_always_finishes_with_a_third_of_the_fleet_offline():
    """Without failures and with 30 % offline devices every rollout over 1000 devices finishes."""
    ends = [inv.travel(step, inv.plan("10,10%,100%"), seed, 1000, p_fail=0.0) for seed in range(8)]
    assert {w.r.status for w in ends} == {"finished"}
    assert all(touched(w) < 1000 for w in ends)


def test_a_harmful_release_never_reaches_the_fleet():
    """At 40 % failures every rollout halts and touches at most the first tenth of the fleet."""
    ends = [inv.travel(step, inv.plan("10,10%,100%"), seed, 1000, p_fail=0.4) for seed in range(20)]
    assert {w.r.status for w in ends} == {"halted"}
    assert max(map(touched, ends)) <= 100


def test_the_same_seed_gives_the_same_run():
    """A rollout is replayable: equal events give an equal state and equal commands."""
    one, two = (inv.travel(step, inv.plan("10,10%,100%"), 7, 500, p_fail=0.03) for _ in range(2))
    assert one.r == two.r
    assert one.commands == two.commands
