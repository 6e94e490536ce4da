"""Barriers in the engine: the laws hold in any world, seeded bugs break them, and what each rule means on one small wave."""

import importlib.util
import json
from pathlib import Path

import pytest

from edgeops.rollout import state as s
from edgeops.rollout.barrier import MOST_MARGIN_S, latest_decision
from edgeops.rollout.codec import decode, encode
from edgeops.rollout.conditions import allowed_s, conditions_from, settings_of
from edgeops.rollout.engine import step
from edgeops.rollout.gates import explain
from edgeops.rollout.policy import Policy
from edgeops.rollout.silence import Seen, judge_silence, next_deadline
from edgeops.rollout.state import Rollout
from edgeops.wire.conditions import Conditions


def _load(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


world, mutations = _load("barriers"), _load("test_mutations")
SEEDS = range(300)
CALL_OFF = '    r, back = _call_off(r)\n    r = replace(_move(r, "trip")'
ABORT = '    r, back = _call_off(r)\n    r = replace(_move(r, "abort-keep")'

MUTANTS = {
    "a wave commits that is not whole": ("barrier", "ready(wave) >= members(wave)", "ready(wave) >= members(wave) - 1"),
    "only who has started must be ready": ("barrier", "return max(wave.size, wave.started)", "return wave.started"),
    "the decision is not kept": ("engine", 'decision="commit", deadline=due', "deadline=due"),
    "a lost device does not matter": ("barrier", "if lost := wave.failures + wave.unfit:", "if lost := 0:"),
    "an unfit device does not matter": ("barrier", "if lost := wave.failures + wave.unfit:", "if lost := wave.failures:"),
    "decides though the first gives up": ("barrier", "wave.commit_by is not None and r.now >= wave.commit_by", "False"),
    "an undecided wave has no end": ("barrier", "if running and r.now >= min(", "if False and min("),
    "decides while paused": ("barrier", "if running and ready(wave)", "if ready(wave)"),
    "a halt leaves the others waiting": ("engine", CALL_OFF, CALL_OFF.replace("_call_off(r)", "r, ()")),
    "an abort leaves the others waiting": (
        "engine", ABORT, ABORT.replace("_call_off(r)", "r, ()"),
    ),
    "a split is not taken back": ("engine", "        commands += (Recall(r.plan.previous, index, index),)\n", ""),
    "a split is not seen": ("barrier", 'wave.decision == "commit" and wave.failures', "False"),
    "recalls another wave": ("engine", "(Recall(r.plan.previous, r.current, r.current),)", "(Recall(r.plan.previous, 0, 0),)"),
    "the next wave does not wait for the decision": ("gates", "if barrier.is_undecided(r):", "if False:"),
    "most of a barrier is enough": ("gates", "kept(r) * PPM >= r.plan.success_ppm", "kept(r) * PPM >= r.plan.policy.success_ppm"),
    "an operator leaves a barrier undecided": ("transitions", 'if word == "advance" and is_undecided(r):', "if False:"),
    "resumes what was taken back": ("transitions", 'if word == "resume" and', "if False and"),
}  # fmt: skip


def first_break(step) -> str:
    """The first law broken over all seeds, or the empty string."""
    for seed in SEEDS:
        try:
            world.wander(step, seed)
        except (AssertionError, RecursionError, KeyError, IndexError) as error:
            return f"seed {seed}: {error!r}"
    return ""


def test_the_unpatched_sources_keep_every_law():
    """The control, which must also reach what the laws are about: waves that commit, that are taken back, that go apart."""
    assert first_break(mutations.build({})) == ""
    ends = [world.wander(step, seed) for seed in SEEDS]
    assert sum(bool(end.decided - end.recalled) for end in ends) > 30
    assert sum(bool(end.recalled - end.decided) for end in ends) > 30
    assert sum(end.r.why.startswith("barrier-split") for end in ends) > 5
    assert sum(end.r.status == "finished" for end in ends) > 5


@pytest.mark.parametrize("name", MUTANTS)
def test_each_seeded_bug_is_caught(name):
    """A bug put into a copy of the sources breaks a law within the seeds."""
    module, old, new = MUTANTS[name]
    assert first_break(mutations.build({module: (old, new)})) != ""


def fed(*events, **settings):
    """(rollout, all commands) after these events on a single wave of three."""
    rollout, given = Rollout(world.plan("100%", **settings)), []
    for event in [s.Started(0, 3), *events]:
        rollout, commands = step(rollout, event)
        given += commands
    return rollout, given


def test_one_wave_from_start_to_end():
    """Three start, three wait, all are let commit, all have; the wave passes and the rollout is finished."""
    ready = [s.DeviceStarted(1, 0, 3), s.Proven(2, 0, 2, 90)]
    rollout, given = fed(*ready)
    assert "2 of 3 devices are ready at the barrier" in explain(rollout)
    assert s.CommitWave(0) not in given and rollout.wake == 90
    rollout, given = fed(*ready, s.Proven(3, 0, 3, 90))
    assert (given.count(s.CommitWave(0)), rollout.wave.decision, rollout.status) == (1, "commit", "running")
    rollout, given = fed(*ready, s.Proven(3, 0, 3, 90), *[s.Outcome(4, 0, "committed")] * 3)
    assert (given.count(s.CommitWave(0)), rollout.status) == (1, "finished")


def test_a_decided_wave_needs_every_device():
    """Nine tenths are enough for a wave, not for a barrier: it is held until the last one has committed."""
    events = [s.DeviceStarted(1, 0, 3), s.Proven(2, 0, 3, 90), *[s.Outcome(3, 0, "committed")] * 2]
    rollout, _ = fed(*events, success_fraction=0.5)
    assert rollout.status == "running"


def test_what_was_taken_back_is_counted():
    """Devices that have gone back after a broken barrier are not waited for again when the rollout is aborted."""
    events = [s.DeviceStarted(1, 0, 3), s.Outcome(2, 0, "failed"), s.Reverted(3, 2), s.Aborted(4, "revert")]
    rollout, _ = fed(*events)
    assert (rollout.status, rollout.reverted) == ("aborted", 2)


def test_the_margin():
    """A quarter of a short wait, five minutes of a long one."""
    assert latest_decision(100, 1_000) == 1_075
    assert latest_decision(86_400, 1_000) == 1_000 + 86_400 - MOST_MARGIN_S


def test_lawful_waits_put_the_device_deadline_off():
    """A gate before fetching, one before switching, one before committing: each adds its wait, and only then."""
    for settings, allowed in (
        ({}, 0), ({"fetch_when": "parked", "wait_s": 50}, 50), ({"fetch_when": "a", "activate_when": "b", "wait_s": 50}, 100),
        ({"barrier": True, "commit_wait_s": 7}, 7), ({"offline_commit": "wait", "commit_wait_s": 7}, 7),
    ):  # fmt: skip
        assert allowed_s(conditions_from(settings)) == allowed
    seen = Seen(started_at=0, activated_at=None, last_seen=99, waits_s=40)
    assert judge_silence(Policy(device_deadline_s=100), seen, 139) == "fine"
    assert judge_silence(Policy(device_deadline_s=100), seen, 140) == "overdue"
    assert next_deadline(Policy(device_deadline_s=100), seen, 5) == 140


def test_settings_and_conditions_are_the_same():
    """What an operator wrote can be read back from what devices are told."""
    for settings in ({}, {"fetch_when": "a,!b", "wait_s": 5}, {"barrier": True}, {"offline_commit": "wait", "commit_wait_s": 9}):
        assert settings_of(conditions_from(settings)) == settings
    assert conditions_from({}) == Conditions()


def test_a_stored_barrier_comes_back():
    """A rollout in the middle of its barrier survives the store; a decision there is not is refused."""
    rollout, _ = fed(s.DeviceStarted(1, 0, 3), s.Proven(2, 0, 3, 90))
    raw = json.loads(json.dumps(encode(rollout)))
    assert decode(raw) == rollout
    raw["waves"][0]["decision"] = "perhaps"
    with pytest.raises(Exception, match="rollout-state-invalid"):
        decode(raw)


def test_what_an_earlier_version_has_stored_goes_on():
    """A rollout without a word of conditions or barriers loads and takes events."""
    plain, _ = step(Rollout(world.inv.plan("2,100%")), s.Started(0, 4))
    raw = json.loads(json.dumps(encode(plain)))
    del raw["plan"]["conditions"]
    for wave in raw["waves"]:
        for name in ("proven", "commit_by", "decision"):
            del wave[name]
    found = decode(raw)
    assert found == plain
    assert step(found, s.DeviceStarted(1, 0, 2))[0].wave.started == 2
