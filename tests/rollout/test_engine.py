"""The engine: its story, its table, its laws under random events."""

import importlib.util
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeops.rollout import state as s
from edgeops.rollout.codec import decode, encode
from edgeops.rollout.engine import step
from edgeops.rollout.gates import explain
from edgeops.rollout.state import Rollout
from edgeops.wire.errors import Misuse

_spec = importlib.util.spec_from_file_location("rollout_invariants", Path(__file__).with_name("invariants.py"))
inv = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(inv)
plan, Watched = inv.plan, inv.Watched


def run(order, *events) -> Watched:
    """Feed events to a fresh rollout, checking the laws after each."""
    world = Watched(step, order)
    for event in events:
        world.feed(event)
    return world


def commit(now, wave, n=1):
    """Events of n devices of a wave that start and commit at once."""
    return [s.DeviceStarted(now, wave, n), *[s.Outcome(now, wave, "committed")] * n]


def of(kind, commands):
    """The commands of one kind."""
    return [c for c in commands if isinstance(c, kind)]


def test_a_good_rollout_opens_wave_after_wave_and_finishes():
    """Each wave opens when the one before has held its fraction for its dwell, and the last one finishes the rollout."""
    world = run(plan(), s.Started(0, 20), *commit(1, 0), s.Tick(10))
    assert (world.r.current, world.r.wake) == (0, 11)
    assert of(s.OpenWave, world.feed(s.Tick(11))) == [s.OpenWave(1, 2)]
    for event in [*commit(12, 1), s.Tick(22), *commit(23, 2, 18), s.Tick(33)]:
        world.feed(event)
    assert world.r.status == "finished"
    assert [c.index for c in of(s.OpenWave, world.commands)] == [0, 1, 2]
    assert [w.passed for w in world.r.waves] == ["earned"] * 3


def test_offline_devices_never_block():
    """A wave passes on the devices that started, however many of it are offline."""
    world = run(plan("10,100%"), s.Started(0, 100), *commit(1, 0, 2), s.Tick(11))
    assert world.r.current == 1


def test_the_last_wave_finishes_at_its_timeout_when_everybody_left_is_offline():
    """Nobody started in the last wave: at the timeout the rollout finishes and says that it was not judged."""
    world = run(plan("1,100%"), s.Started(0, 5), *commit(1, 0), s.Tick(11))
    assert world.r.status == "running"
    commands = world.feed(s.Tick(111))
    assert world.r.status == "finished"
    assert "not-enough-devices" in [c.kind for c in of(s.Notify, commands)]


def test_a_wave_nobody_started_stops_with_its_reason_and_can_be_advanced():
    """A canary that is offline until the timeout proves nothing: halt, resume waits again, advance goes on."""
    world = run(plan(), s.Started(0, 20), s.Tick(100))
    assert world.r.status == "halted"
    assert world.r.why.startswith("not-enough-devices")
    assert of(s.OpenWave, world.feed(s.Resumed(150))) == [s.OpenWave(0, 1)]
    assert (world.r.status, world.r.wave.deadline) == ("running", 250)
    assert of(s.OpenWave, world.feed(s.Advanced(151))) == [s.OpenWave(1, 2)]
    assert world.r.waves[0].passed == "forced"


def test_a_failed_canary_stops_at_once():
    """One failure in a wave of one cannot be made good any more: the rollout halts without waiting for its timeout."""
    world = run(plan(), s.Started(0, 20), s.DeviceStarted(1, 0), s.Outcome(2, 0, "rolled-back", "nan outputs"))
    assert world.r.status == "halted"
    assert world.r.why.startswith("wave-missed: 0 of 1")
    assert world.r.reasons == (s.Reason("rolled-back", "nan outputs", 1),)


def test_a_relapse_after_the_trial_counts_as_a_failure():
    """A committed device whose model died is taken out of the committed and into the failed; the gates hear of it at once."""
    world = run(plan("10,100%", max_failures=0), s.Started(0, 100), *commit(1, 0, 9))
    assert world.r.status == "running"
    world.feed(s.Relapsed(3, 0, "committed", "crashed"))
    wave = world.r.waves[0]
    assert (wave.started, wave.committed, wave.failed, world.r.status) == (9, 8, 1, "halted")
    assert world.r.reasons == (s.Reason("failed", "crashed", 1),)


def test_a_missed_fraction_stops_at_the_timeout():
    """Devices that started and hang keep a wave below its fraction: at the timeout the rollout stops."""
    world = run(plan("10,100%"), s.Started(0, 100), s.DeviceStarted(1, 0, 10), *[s.Outcome(2, 0, "committed")] * 8, s.Tick(99))
    assert world.r.status == "running"
    world.feed(s.Tick(100))
    assert world.r.why.startswith("wave-missed: 8 of 10")


def test_a_met_wave_finishes_its_dwell_beyond_the_timeout():
    """A fraction reached shortly before the timeout is given its dwell, and is lost when it falls in that time."""
    start = [s.Started(0, 100), s.DeviceStarted(1, 0, 10), *[s.Outcome(95, 0, "committed")] * 9]
    assert run(plan("10,100%"), *start, s.Tick(104)).r.current == 0
    assert run(plan("10,100%"), *start, s.Tick(105)).r.current == 1
    fell = run(plan("10,100%"), *start, s.DeviceStarted(101, 0, 5))
    assert fell.r.status == "halted"


def test_reachable_devices_that_have_not_started_hold_a_wave():
    """While the store says that reachable devices have yet to start, a wave does not pass before its timeout."""
    world = run(plan("10,100%"), s.Started(0, 100), *commit(1, 0), s.Tick(20, waiting=9))
    assert world.r.current == 0
    world.feed(s.Tick(21))
    assert world.r.current == 1
    held = run(plan("10,100%"), s.Started(0, 100), *commit(1, 0), s.Tick(20, waiting=9), s.Tick(100, waiting=9))
    assert held.r.current == 1


def test_resume_after_a_halt_acknowledges_only_what_was_seen():
    """Seen failures no longer count, a new one trips again."""
    order = plan("10,100%", max_failures=1, success_fraction=0.5)
    failed = [s.Outcome(2, 0, "failed", "x")]
    world = run(order, s.Started(0, 100), s.DeviceStarted(1, 0, 10), *failed * 2)
    assert world.r.why.startswith("hard-stop")
    world.feed(s.Resumed(3))
    assert world.r.status == "running"
    world.feed(*failed)
    assert world.r.status == "running"
    world.feed(*failed)
    assert world.r.status == "halted"


def test_a_pause_stops_new_starts_and_holds_the_timers():
    """While paused nothing runs out; resuming opens the same wave again and shifts its timers."""
    world = run(plan(), s.Started(0, 20))
    assert of(s.Stop, world.feed(s.Paused(10)))
    world.feed(s.Tick(5_000_000))
    assert world.r.status == "paused"
    assert of(s.OpenWave, world.feed(s.Resumed(5_000_000))) == [s.OpenWave(0, 1)]
    assert (world.r.wave.deadline, world.r.wake) == (5_000_090, 5_000_090)


def test_the_hard_stop_acts_while_paused():
    """Failures that arrive during a pause halt the rollout, so that a plain resume does not hide them."""
    world = run(plan("10,100%", max_failures=0), s.Started(0, 100), s.DeviceStarted(1, 0, 10), s.Paused(2))
    world.feed(s.Outcome(3, 0, "failed"))
    assert world.r.status == "halted"


def test_a_recall_ends_when_everybody_is_back():
    """Abort with revert recalls every opened wave, waits for the devices that had it, then is aborted."""
    world = run(plan(), s.Started(0, 20), *commit(1, 0), s.Tick(11), s.DeviceStarted(12, 1))
    commands = world.feed(s.Aborted(13, "revert"))
    assert of(s.Recall, commands) == [s.Recall("old", 1)]
    assert of(s.Stop, commands)
    world.feed(s.Reverted(14))
    assert world.r.status == "reverting"
    world.feed(s.Outcome(15, 1, "rolled-back", "recalled"))
    assert (world.r.status, world.r.why) == ("aborted", "taken back")


def test_a_recall_ends_at_its_deadline_at_the_latest():
    """Devices that never answer do not keep a recall open for ever."""
    world = run(plan(), s.Started(0, 20), *commit(1, 0), s.Aborted(5, "revert"))
    assert world.r.wake == 105
    world.feed(s.Tick(105))
    assert world.r.status == "aborted"
    assert "1 devices will follow" in world.r.why


def test_a_first_release_is_recalled_to_nothing():
    """Without a previous release a recall empties the slot."""
    world = run(plan(previous=None), s.Started(0, 20), *commit(1, 0))
    assert of(s.Recall, world.feed(s.Aborted(2, "revert"))) == [s.Recall(None, 0)]


def test_a_finished_or_kept_rollout_can_still_be_taken_back():
    """Until floors are raised, `abort --revert` works after the end too."""
    done = run(plan("100%"), s.Started(0, 1), *commit(1, 0), s.Tick(11))
    assert done.r.status == "finished"
    assert of(s.Recall, done.feed(s.Aborted(12, "revert")))
    kept = run(plan("100%"), s.Started(0, 1), s.Aborted(1, "keep"))
    assert kept.r.status == "aborted"
    assert of(s.Recall, kept.feed(s.Aborted(12, "revert")))


def test_unfit_devices_leave_the_denominator():
    """A device that declares itself unfit never ran the release: it neither passes nor fails a wave, and is shown."""
    refused = [s.Outcome(2, 0, "unfit", "no variant")] * 5
    world = run(
        plan("10,100%"), s.Started(0, 100), s.DeviceStarted(1, 0, 10), *refused, *[s.Outcome(2, 0, "committed")] * 5, s.Tick(12)
    )
    assert world.r.current == 1
    assert world.r.waves[0].unfit == 5
    nobody = run(plan("2,100%"), s.Started(0, 100), s.DeviceStarted(1, 0, 2), *refused[:2])
    assert nobody.r.why.startswith("not-enough-devices")


def test_an_outside_gate_halts():
    """The sequential test stops a running rollout through Tripped, and is ignored where there is nothing to stop."""
    world = run(plan(), s.Started(0, 20), s.Tripped(3, "sequential", "latency up 20 %"))
    assert (world.r.status, world.r.why) == ("halted", "sequential: latency up 20 %")
    before = world.r
    assert world.feed(s.Tripped(4, "sequential")) == ()
    assert world.r == inv.at(before, 4)


def test_silence_is_told_once_and_shown():
    """Unknown devices are counted and told when their number rises; they are not failures."""
    world = run(plan("10,100%", max_failures=0), s.Started(0, 100), s.DeviceStarted(1, 0, 3))
    assert [c.kind for c in of(s.Notify, world.feed(s.Silence(2, 0, 2)))] == ["devices-silent"]
    assert world.feed(s.Silence(3, 0, 2)) == ()
    assert (world.r.status, world.r.wave.unknown) == ("running", 2)


def test_reasons_are_bounded():
    """First reasons are kept by name, the rest are counted together, long ones are cut."""
    order = plan("100%", success_fraction=0.01, max_failure_ppm=1_000_000, max_failures=1000)
    bad = [s.Outcome(2, 0, "failed", f"code {i}" + "x" * 500) for i in range(40)]
    world = run(order, s.Started(0, 100), s.DeviceStarted(1, 0, 100), *bad, bad[0])
    assert len(world.r.reasons) == s.MAX_REASONS
    assert world.r.reasons[0].count == 2
    assert world.r.reasons[-1] == s.Reason("other", "further reasons", 25)
    assert all(len(x.text) <= s.MAX_REASON_CHARS for x in world.r.reasons)


def test_a_rollout_over_nobody_is_misuse():
    """A group that matches no device cannot be started."""
    with pytest.raises(Misuse) as caught:
        step(Rollout(plan()), s.Started(0, 0))
    assert caught.value.reason == "no-targets"


def test_a_fleet_smaller_than_its_waves_skips_the_empty_ones():
    """A wave already covered by the one before is passed as empty."""
    world = run(plan("3,10%,100%"), s.Started(0, 3), *commit(1, 0, 3), s.Tick(11))
    assert world.r.status == "finished"
    assert [w.passed for w in world.r.waves] == ["earned", "empty", "empty"]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9))
def test_the_laws_hold_under_random_events(seed):
    """Any sequence of device, timer and operator events keeps every law and survives the codec."""
    world = inv.wander(step, seed)
    assert decode(json.loads(json.dumps(encode(world.r)))) == world.r


def test_time_never_runs_back():
    """An event with an older time is applied at the time already reached."""
    assert run(plan(), s.Started(50, 20), s.Tick(7)).r.now == 50


def test_a_gate_says_what_it_waits_for():
    """`explain` tells too few devices, a held fraction, and why a rollout rests."""
    world = run(plan("10,100%", min_devices=3), s.Started(0, 100), *commit(1, 0))
    assert explain(world.r) == "wave 1 of 2: not-enough-devices: 1 of at least 3 started"
    for event in commit(2, 0, 2):
        world.feed(event)
    assert explain(world.r).startswith("wave 1 of 2: 3 of 3 started devices committed; holding")
    world.feed(s.Tripped(3, "sequential", "latency"))
    assert explain(world.r) == "halted: sequential: latency"
    assert explain(Rollout(plan())) == "pending"
