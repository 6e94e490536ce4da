"""The stored form of plans and rollouts."""

import json

import pytest

from edgeops.rollout import state as s
from edgeops.rollout.codec import decode, decode_plan, encode, encode_plan
from edgeops.rollout.engine import step
from edgeops.rollout.plan import Plan, parse_waves
from edgeops.rollout.policy import Policy
from edgeops.rollout.state import Rollout
from edgeops.wire.errors import Misuse

PLAN = Plan("r1", "new", "m", 3, "main", None, parse_waves("1,0.5%,50%"), Policy(success_fraction=0.97, dwell_s=5))


def through_json(value):
    """A value as the store gives it back."""
    return json.loads(json.dumps(value))


def test_round_trip():
    """A fresh and a busy rollout come back equal."""
    fresh = Rollout(PLAN)
    assert decode_plan(through_json(encode_plan(PLAN))) == PLAN
    assert decode(through_json(encode(fresh))) == fresh
    busy = fresh
    for event in [s.Started(5, 500), s.DeviceStarted(6, 0), s.Outcome(7, 0, "failed", "x"), s.Resumed(8), s.Paused(9)]:
        busy, _ = step(busy, event)
    assert decode(through_json(encode(busy))) == busy


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw.pop("format"),
        lambda raw: raw.update(format=2),
        lambda raw: raw.pop("status"),
        lambda raw: raw.update(extra=1),
        lambda raw: raw["plan"].pop("waves"),
        lambda raw: raw.update(waves=[{"sizes": 1}]),
        lambda raw: raw["plan"]["policy"].update(dwell_s="x"),
        lambda raw: raw.update(plan=None),
        lambda raw: raw.update(status="dancing"),
        lambda raw: raw.update(current=7),
    ],
)
def test_a_damaged_state_is_refused(damage):
    """A state that is not exactly ours is refused and says what to do."""
    raw = through_json(encode(Rollout(PLAN)))
    damage(raw)
    with pytest.raises(Misuse):
        decode(raw)
