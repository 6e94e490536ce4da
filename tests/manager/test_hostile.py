"""Enrolled devices that lie: the manager neither believes them, nor dies, nor lets them spoil anything for the others."""

from dataclasses import replace

import numpy as np
import pytest
from manager_house import FLEET, NOW, Clock, Fleet

from edgeops.manager import devices, reconcile, rollouts, status, telemetry
from edgeops.manager.hub import Hub
from edgeops.manager.ingest import MOST_COUNTER, WINDOWS_AT_ONCE
from edgeops.sketch.build import build_reference
from edgeops.sketch.latency import LatencyHistogram
from edgeops.sketch.probes import COLUMNS
from edgeops.sketch.window import SketchWindow, Tally
from edgeops.store import audit
from edgeops.wire import topics
from edgeops.wire.envelope import seal
from edgeops.wire.messages import OutcomeReport, Presence, SlotReport, seal_tele

PROFILE = build_reference(np.random.default_rng(7).normal(size=(2000, 4)), seed=1)
HUGE = 2**53 - 1


@pytest.fixture
def fleet(hub: Hub, clock: Clock) -> Fleet:
    """An honest device and a liar, both online."""
    made = Fleet(hub, clock, ["honest", "liar"])
    made.births()
    made.letters()
    return made


def refused(fleet: Fleet) -> dict[str, int]:
    """Refusals by reason."""
    return {name.removeprefix("refused."): count for name, count in fleet.ingest.counts.items() if name.startswith("refused.")}


@pytest.mark.parametrize("what", [{"counter": HUGE}, {"counter": MOST_COUNTER}, {"command": HUGE}])
def test_a_counter_nobody_could_have_reached_stops_nothing(fleet: Fleet, what: dict[str, int]) -> None:
    """A device cannot leave the manager without a number to go on with: rollouts that include it still start, for all."""
    device = fleet.devices["liar"]
    ended = OutcomeReport("main", 1, "", "", "failed", "x", "")
    fleet.up("liar", "state", device.state({"main": SlotReport("idle")}, what.get("counter", 0), command=what.get("command", 0),
                                           outcomes=(ended,)))  # fmt: skip
    assert refused(fleet) == {"absurd-counter": 1}
    fleet.publish(1)
    fleet.start()
    assert set(fleet.deliver()) == {"honest", "liar"}


def test_a_creeping_counter_cannot_fill_the_audit_log(fleet: Fleet, clock: Clock) -> None:
    """Each report claims one more than was signed: it is adopted once a minute at most."""
    fleet.publish(1)
    fleet.start()
    for claimed in range(10, 60):
        fleet.up("liar", "state", fleet.devices["liar"].state({"main": SlotReport("idle")}, claimed))
    with fleet.hub.store.read() as tx:
        assert sum(entry["action"] == "counter-adopted" for entry in audit.page(tx, 1000)) == 1


@pytest.mark.parametrize("how", ["slot", "outbox"])
def test_a_commit_of_another_release_is_not_counted(fleet: Fleet, how: str) -> None:
    """Committed, for the right rollout, but of a release that was never ordered."""
    fleet.publish(1)
    rollout = fleet.start(waves="100%")
    fleet.deliver()
    other = "f" * 64
    said = SlotReport("idle", "digits", 9, other, "base", rollout, "committed", target=other)
    outcomes = (OutcomeReport("main", 1, rollout, other, "committed"),) if how == "outbox" else ()
    slots = {"main": said if how == "slot" else SlotReport("idle")}
    fleet.up("liar", "state", fleet.devices["liar"].state(slots, 1, outcomes=outcomes))
    assert fleet.show(rollout)["counts"]["started"] == fleet.show(rollout)["counts"]["committed"] == 0


def test_states_of_unknown_rollouts_and_unopened_waves_count_nothing(fleet: Fleet) -> None:
    """A rollout that does not exist, and one whose wave this device is not in yet."""
    release = fleet.publish(1)
    rollout = fleet.start(waves="1,100%")
    later = fleet.show(rollout)["devices"][1]["device"]
    fleet.deliver()
    fleet.commit(later, rollout, release)
    fleet.commit(later, "r-20990101-7", release)
    assert fleet.show(rollout)["counts"]["started"] == 0


def window(seq: int, release: str, **lies: int) -> SketchWindow:
    """A window of 400 calls, some of whose numbers are lies."""
    rows = np.random.default_rng(seq).normal(size=(400, 4))
    numbers = {"n": 400, "calls": 400, "errors": 0, "invalid": 0, "dropped": 0} | lies
    tally = Tally(**numbers, probes=PROFILE.count(rows), latency=LatencyHistogram.of(np.full(400, 900)))
    return SketchWindow(bytes.fromhex(release)[:8], PROFILE.hash8, b"b" * 16, seq, NOW * 1000, 1000, 1, tally)


def tell(fleet: Fleet, name: str, *windows: SketchWindow) -> None:
    """Telemetry of a device arrives."""
    for one in windows:
        fleet.up(name, "tele", seal_tele(one.to_bytes(), fleet.devices[name].identity))


def both_run_with_a_reference(fleet: Fleet) -> str:
    """Both devices run a release that carries a reference profile; its digest."""
    release = fleet.publish(1, reference=PROFILE.to_bytes())
    for device in fleet.devices.values():
        fleet.up(device.id, "state", device.state({"main": SlotReport("idle", "digits", 1, release, "base")}))
    return release


def answers(fleet: Fleet) -> dict[str, str]:
    """Every answer made from telemetry; the drift verdict by device."""
    assert [row["id"] for row in status.overview(fleet.hub, None)["devices"]] == ["honest", "liar"]
    for by in ("device", "release", "fleet"):
        telemetry.listed(fleet.hub, by=by)  # type: ignore[arg-type]
    return {row["device"]: row["verdict"] for row in telemetry.drift(fleet.hub)}


def test_a_window_with_other_probes_spoils_nobodys_answer(fleet: Fleet) -> None:
    """A window that names the right profile with the wrong number of probes is passed over."""
    release = both_run_with_a_reference(fleet)
    honest = window(1, release)
    none = replace(honest.tally, n=0, probes=np.zeros((0, COLUMNS), dtype=np.int64))
    few = replace(honest.tally, probes=honest.tally.probes[:2])
    tell(fleet, "honest", honest)
    tell(fleet, "liar", replace(honest, tally=none), replace(honest, seq=2, tally=few))
    assert answers(fleet) == {"honest": "ok", "liar": "no-telemetry"}


@pytest.mark.parametrize("number", ["calls", "errors", "invalid", "dropped"])
def test_absurd_counts_are_refused(fleet: Fleet, number: str) -> None:
    """Counts no device could reach would drown everybody's in the sums of the fleet."""
    release = both_run_with_a_reference(fleet)
    tell(fleet, "honest", window(1, release))
    tell(fleet, "liar", window(1, release, **{number: 2**62}))
    assert refused(fleet) == {"absurd-count": 1}
    assert answers(fleet) == {"honest": "ok", "liar": "no-telemetry"}


def test_absurd_probes_and_latencies_are_refused(fleet: Fleet) -> None:
    """Probe counts that add up, and latencies, but to more than can be."""
    release = both_run_with_a_reference(fleet)
    honest = window(1, release)
    many = Tally(400 << 40, 400, 0, 0, 0, honest.tally.probes << 40, honest.tally.latency)
    slow = replace(honest.tally, latency=LatencyHistogram(((5, 2**62),), 2**62))
    tell(fleet, "liar", replace(honest, tally=many), replace(honest, seq=2, tally=slow))
    assert refused(fleet) == {"absurd-count": 2}
    assert answers(fleet) == {"honest": "no-telemetry", "liar": "no-telemetry"}


def test_largest_counts_allowed_still_answer(fleet: Fleet) -> None:
    """64 windows at the very limit neither overflow nor break an answer."""
    release = both_run_with_a_reference(fleet)
    probes = np.zeros_like(PROFILE.counts)
    probes[:, 3] = 1 << 32
    tally = Tally(1 << 32, 1 << 32, 1 << 32, 1 << 32, 1 << 32, probes, LatencyHistogram(((5, 1 << 32),), 2**62))
    last = SketchWindow(bytes.fromhex(release)[:8], PROFILE.hash8, b"b" * 16, 2**62, 2**62, 2**62, 1, tally)
    tell(fleet, "liar", *(replace(last, seq=2**62 - number, start_ms=2**62 + number) for number in range(64)))
    assert refused(fleet) == {}
    assert answers(fleet)["liar"] in ("ok", "drift")


def test_windows_beyond_any_spool_are_refused(fleet: Fleet, clock: Clock) -> None:
    """A whole spool at once is welcome; after that, one window a second."""
    device, release = fleet.devices["liar"], "0" * 64
    data = [seal_tele(window(seq, release).to_bytes(), device.identity) for seq in range(8)]
    for turn in range(WINDOWS_AT_ONCE + 50):
        fleet.up("liar", "tele", data[turn % 8])
    assert refused(fleet) == {"too-many-windows": 50}
    clock.now += 2
    for _ in range(5):
        fleet.up("liar", "tele", data[0])
    assert refused(fleet) == {"too-many-windows": 53}


@pytest.mark.parametrize(("noun", "size"), [("presence", 33 << 10), ("state", 513 << 10), ("tele", 2_200), ("log", 9 << 10)])
def test_oversized_messages_are_refused_unread(fleet: Fleet, noun: str, size: int) -> None:
    """Every noun has its own bound."""
    fleet.up("liar", noun, b"x" * size)
    assert refused(fleet) == {"too-large": 1}


def test_an_invented_device_class_is_none(fleet: Fleet) -> None:
    """What a device calls itself is shown, stored in reasons and matched against variants only if there is such a class."""
    device = fleet.devices["liar"]
    said = {"class": "\x1b[2J" + "x" * 20_000, "wire": [1]}
    birth = Presence(FLEET, "liar", 1, device.boot, "birth", device.nonce, said, seq=99)
    fleet.up("liar", "presence", seal("presence", birth.payload(), [device.identity]))
    assert devices.show(fleet.hub, "liar")["device_class"] == ""


def test_refusals_are_logged_once_a_minute(fleet: Fleet, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """The same rubbish a thousand times is one line, and another after a minute."""
    for _ in range(1000):
        fleet.up("liar", "state", b"rubbish")
    assert len(caplog.records) == 1
    clock.now += 60
    fleet.up("liar", "state", b"rubbish")
    fleet.ingest.take(topics.up("liar", "state") + "x" * 60_000, b"")
    assert [len(record.getMessage()) < 1000 for record in caplog.records] == [True] * 3


def test_a_device_that_began_as_it_was_stopped_begins_again(fleet: Fleet) -> None:
    """Paused while the report of beginning was on its way: the offer is withdrawn all the same, and resuming offers it anew."""
    release = fleet.publish(1)
    rollout = fleet.start()
    fleet.deliver()
    rollouts.operate(fleet.hub, "me", rollout, "pause")
    fleet.report("honest", rollout, "fetch", release)
    fleet.report("honest", rollout, "idle", release, "cancelled")
    assert fleet.show(rollout)["counts"]["started"] == 0
    fleet.deliver()
    rollouts.operate(fleet.hub, "me", rollout, "resume")
    assert set(fleet.deliver()) == {"honest", "liar"}
    for name in fleet.devices:
        fleet.commit(name, rollout, release)
    assert fleet.show(rollout)["status"] == "finished"


def test_a_recall_waits_for_nobody_who_has_something_newer(fleet: Fleet) -> None:
    """Taking back a release nobody runs any more is over at once, and an absent device keeps no slot from a new rollout."""
    for version in (1, 2):
        release = fleet.publish(version)
        rollout = fleet.start(version)
        fleet.deliver()
        for name in fleet.devices:
            fleet.commit(name, rollout, release, version)
    first, second = (row["id"] for row in reversed(rollouts.listed(fleet.hub)))
    rollouts.operate(fleet.hub, "me", first, "abort", "revert")
    reconcile.tick(fleet.hub)
    assert fleet.show(first)["status"] == "aborted"
    rollouts.operate(fleet.hub, "me", second, "abort", "revert")
    reconcile.tick(fleet.hub)
    assert fleet.show(second)["status"] == "reverting"
    fleet.publish(3)
    third = fleet.start(3, waves="100%")
    reconcile.tick(fleet.hub)
    assert (fleet.show(second)["status"], fleet.show(third)["status"]) == ("aborted", "running")
