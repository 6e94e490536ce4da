"""One test per policy field: each shows two runs that differ only in that field and end differently."""

import importlib.util
from pathlib import Path

from edgeops.rollout import state as s
from edgeops.rollout.engine import step
from edgeops.rollout.policy import DEFAULTS, PPM, Policy
from edgeops.rollout.silence import Seen, judge_silence, next_deadline

_spec = importlib.util.spec_from_file_location("rollout_invariants", Path(__file__).with_name("invariants.py"))
inv = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(inv)


def end(waves, events, targets=100, **settings) -> s.Rollout:
    """The state after the events under a policy with these settings."""
    world = inv.Watched(step, inv.plan(waves, **settings))
    for event in [s.Started(0, targets), *events]:
        world.feed(event)
    return world.r


def fleet(started, good=0, bad=0, verdict="committed", now=1):
    """Devices of the first wave that start, and the outcomes of some."""
    done = [s.Outcome(now, 0, verdict)] * good + [s.Outcome(now, 0, "failed")] * bad
    return [s.DeviceStarted(now, 0, started), *done]


def test_success_fraction():
    """Eight of ten pass a wave that wants eight tenths and stop one that wants nine."""
    events = [*fleet(10, good=8, bad=2), s.Tick(11)]
    assert end("10,100%", events, success_fraction=0.8).current == 1
    assert end("10,100%", events, success_fraction=0.9).status == "halted"


def test_dwell_s():
    """The next wave opens after the dwell, not before."""
    events = [*fleet(10, good=10), s.Tick(30)]
    assert end("10,100%", events, dwell_s=29).current == 1
    assert end("10,100%", events, dwell_s=30).current == 0


def test_min_devices():
    """Three started devices are enough for a wave that needs three and too few for one that needs four."""
    events = [*fleet(3, good=3), s.Tick(30)]
    assert end("10,100%", events, min_devices=3).current == 1
    few = end("10,100%", events, min_devices=4)
    assert (few.current, few.status) == (0, "running")
    assert end("10,100%", [*fleet(3, good=1, bad=2), s.Tick(30)], min_devices=4, max_failure_ppm=PPM).status == "running"


def test_wave_timeout_s():
    """A wave that hangs is stopped at its timeout."""
    events = [*fleet(10, good=1), s.Tick(60)]
    assert end("10,100%", events, wave_timeout_s=60).status == "halted"
    assert end("10,100%", events, wave_timeout_s=61).status == "running"


def test_silence_s():
    """A device silent since its activation becomes unknown at this age."""
    seen = Seen(started_at=0, activated_at=10, last_seen=12)
    assert judge_silence(Policy(silence_s=50), seen, 62) == "unknown"
    assert judge_silence(Policy(silence_s=51), seen, 62) == "fine"
    assert next_deadline(Policy(silence_s=50), seen, 20) == 62


def test_silence_failure_s():
    """An unknown device becomes a failure at this age."""
    seen = Seen(started_at=0, activated_at=10, last_seen=5)
    assert judge_silence(Policy(silence_s=50, silence_failure_s=100), seen, 110) == "silent"
    assert judge_silence(Policy(silence_s=50, silence_failure_s=101), seen, 110) == "unknown"
    assert next_deadline(Policy(silence_s=50, silence_failure_s=100), seen, 60) == 110


def test_device_deadline_s():
    """A device that is heard but never ends is overdue at its deadline; time away after a goodbye does not count."""
    seen = Seen(started_at=0, activated_at=None, last_seen=99)
    assert judge_silence(Policy(device_deadline_s=100), seen, 100) == "overdue"
    assert judge_silence(Policy(device_deadline_s=101), seen, 100) == "fine"
    assert judge_silence(Policy(device_deadline_s=100), Seen(0, None, 99, paused_s=40), 100) == "fine"
    assert next_deadline(Policy(device_deadline_s=100), seen, 5) == 100


def test_a_clean_goodbye_pauses_every_deadline():
    """After a goodbye a device is fine for as long as it is away, and nothing is due."""
    seen = Seen(started_at=0, activated_at=10, last_seen=20, goodbye_at=20)
    assert judge_silence(Policy(), seen, 10**9) == "fine"
    assert next_deadline(Policy(), seen, 30) is None
    assert judge_silence(Policy(), Seen(0, 10, 21, goodbye_at=20), 10**9) == "silent"


def test_silence_before_activation_is_no_verdict():
    """A device that never switched to the release is bounded by its deadline only."""
    assert judge_silence(Policy(device_deadline_s=50_000), Seen(0, None, 0), 40_000) == "fine"


def test_rollout_deadline_s():
    """A rollout that never gets anywhere is stopped at its deadline, whatever its waves allow."""
    assert end("10,100%", [s.Tick(50)], rollout_deadline_s=50).why.startswith("rollout-deadline")
    assert end("10,100%", [s.Tick(50)], rollout_deadline_s=51).status == "running"


def test_max_failures():
    """One failure more than allowed stops the rollout."""
    events = fleet(50, bad=3)
    assert end("50,100%", events, max_failures=2).why.startswith("hard-stop: 3 devices failed")
    assert end("50,100%", events, max_failures=3).status == "running"


def test_max_failure_ppm():
    """A share of failures above the allowed one stops the rollout."""
    events = fleet(20, bad=3)
    assert end("100%", events, max_failure_ppm=149_999).why.startswith("hard-stop: 3 of 20")
    assert end("100%", events, max_failure_ppm=150_000).status == "running"


def test_hard_stop_min_started():
    """The share says nothing before enough devices started."""
    events = fleet(5, bad=2)
    settings = {"max_failure_ppm": 100_000, "min_devices": 50}
    assert end("100%", events, hard_stop_min_started=5, **settings).why.startswith("hard-stop")
    assert end("100%", events, hard_stop_min_started=6, **settings).status == "running"


def test_count_unproven():
    """Devices without traffic count as committed, or not, as the policy says."""
    events = [*fleet(10, good=10, verdict="committed-unproven"), s.Tick(11)]
    assert end("10,100%", events, count_unproven=True).current == 1
    assert end("10,100%", events, count_unproven=False).status == "halted"


def test_every_field_has_its_test():
    """A new policy field without a test of its own name fails here."""
    assert {f"test_{name}" for name in DEFAULTS} <= set(globals())
