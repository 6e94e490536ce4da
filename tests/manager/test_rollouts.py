"""From device reports to rollout verdicts: each device counts once, and what the store says is all there is."""

from dataclasses import replace

import pytest
from manager_house import Clock, Fleet

from edgeops.manager import reconcile, rollouts
from edgeops.manager.desire import wish_of
from edgeops.manager.hub import Hub, open_hub
from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.messages import OutcomeReport, SlotReport


@pytest.fixture
def fleet(hub: Hub, clock: Clock) -> Fleet:
    """Four enrolled devices that are online."""
    made = Fleet(hub, clock, ["a", "b", "c", "d"])
    made.births()
    made.letters()
    return made


def order_of(fleet: Fleet, rollout: str) -> list[str]:
    """Device names in the order of the waves."""
    return [row["device"] for row in fleet.show(rollout)["devices"]]


def statuses(fleet: Fleet, rollout: str) -> dict[str, str]:
    """Assignment status by device."""
    return {row["device"]: row["status"] for row in fleet.show(rollout)["devices"]}


def test_waves_open_one_after_the_other(fleet: Fleet) -> None:
    """Only the devices of open waves are offered the release; the next wave opens when the first has committed."""
    release = fleet.publish(1)
    rollout = fleet.start(waves="1,2,100%")
    first, second, *rest = order_of(fleet, rollout)
    offered = fleet.deliver()
    assert set(offered) == {first}
    assert offered[first].slots["main"].release == release
    fleet.commit(first, rollout, release)
    assert set(fleet.deliver()) == {second}
    fleet.commit(second, rollout, release)
    assert set(fleet.deliver()) == set(rest)
    for name in rest:
        fleet.commit(name, rollout, release)
    shown = fleet.show(rollout)
    assert (shown["status"], shown["counts"]["committed"], shown["counts"]["started"]) == ("finished", 4, 4)


def test_a_device_counts_once_however_often_it_reports(fleet: Fleet) -> None:
    """Repeated reports of the same outcome change no counter."""
    release = fleet.publish(1)
    rollout = fleet.start()
    fleet.deliver()
    for _ in range(5):
        fleet.commit("a", rollout, release)
    counts = fleet.show(rollout)["counts"]
    assert (counts["started"], counts["committed"]) == (1, 1)


def test_a_failed_canary_stops_the_rollout(fleet: Fleet) -> None:
    """A rolled-back first device halts; nobody else is offered the release, and its reason is shown."""
    release = fleet.publish(1)
    rollout = fleet.start(waves="1,100%")
    first = order_of(fleet, rollout)[0]
    fleet.deliver()
    fleet.report(first, rollout, "trial", release)
    fleet.report(first, rollout, "idle", release, "rolled-back")
    shown = fleet.show(rollout)
    assert shown["status"] == "halted" and "wave-missed" in shown["why"]
    assert shown["counts"]["rolled_back"] == 1
    assert set(statuses(fleet, rollout).values()) == {"settled", "planned"}
    assert fleet.deliver() == {}


def test_an_outcome_in_the_outbox_settles_though_the_slot_works_on(fleet: Fleet) -> None:
    """What ended while nobody listened is still counted when a newer order is already being worked on, and is acknowledged."""
    old = fleet.publish(1)
    first = fleet.start()
    fleet.deliver()
    fleet.report("a", first, "fetch", old)
    device, newer = fleet.devices["a"], SlotReport("fetch", rollout="r-newer", target="e" * 64)
    ended = OutcomeReport("main", 1, first, old, "failed", "fetch-deadline", "too slow")
    elsewhere = replace(ended, slot="other", verdict="committed")
    for _ in range(2):
        fleet.up("a", "state", device.state({"main": newer}, 1, outcomes=(ended, elsewhere)))
        fleet.deliver()
    counts = fleet.show(first)["counts"]
    assert (counts["started"], counts["failed"], counts["committed"]) == (1, 1, 0)
    assert [(one.kind, one.upto, one.counter) for one in device.commands] == [("ack", 3, 1), ("ack", 4, 2)]


def test_a_model_that_dies_after_its_trial_stops_the_rollout(fleet: Fleet) -> None:
    """A device that had committed and has gone back since counts as failed, once; a disk that rotted is no fault of the release."""
    release = fleet.publish(1)
    rollout = fleet.start(waves="1,100%", policy={"dwell_s": 600, "max_failures": 0})
    fleet.deliver()
    first = next(name for name, status in statuses(fleet, rollout).items() if status == "offered")
    fleet.commit(first, rollout, release)
    assert fleet.show(rollout)["counts"]["committed"] == 1
    lost = OutcomeReport("main", 1, "", release, "failed", "bad-object", "the committed model could not run")
    for reason, status in (("bad-object", "running"), ("crashed", "halted"), ("crashed", "halted")):
        told = replace(lost, reason=reason)
        fleet.up(first, "state", fleet.devices[first].state({"main": SlotReport("idle")}, 1, outcomes=(told,)))
        assert fleet.show(rollout)["status"] == status
    shown = fleet.show(rollout)
    assert (shown["counts"]["committed"], shown["counts"]["failed"]) == (0, 1)
    assert next(row for row in shown["devices"] if row["device"] == first)["reason"] == "crashed"


def test_what_a_disk_has_eaten_is_ordered_again(fleet: Fleet) -> None:
    """A device whose committed model was damaged gets its order once more under a newer number, and only once while it is at it."""
    release = fleet.publish(1)
    rollout = fleet.start()
    fleet.deliver()
    fleet.commit("a", rollout, release)
    fleet.deliver()
    lost, device = OutcomeReport("main", 1, "", release, "failed", "bad-object", "rotten"), fleet.devices["a"]
    orders = []
    for counter in (1, 1, 2):
        fleet.up("a", "state", device.state({"main": SlotReport("idle")}, counter, outcomes=(lost,)))
        orders += [one.counter for one in fleet.deliver().values()]
    assert orders == [2]
    assert fleet.show(rollout)["counts"]["committed"] == 1


def test_a_manager_from_a_backup_commands_above_the_devices_counter(fleet: Fleet) -> None:
    """The newest command a device reports is where the manager's numbering goes on."""
    device = fleet.devices["a"]
    assert device.trust
    device.trust = replace(device.trust, command=70)
    ended = OutcomeReport("main", 3, "", "", "failed", "lost")
    fleet.up("a", "state", device.state({"main": SlotReport("idle")}, 0, command=70, outcomes=(ended,)))
    fleet.deliver()
    assert [one.counter for one in device.commands] == [71]


def test_a_device_that_only_waits_has_not_started(fleet: Fleet) -> None:
    """Phases idle and waiting do not count as started, and neither does what another rollout left."""
    release = fleet.publish(1)
    rollout = fleet.start()
    fleet.report("a", rollout, "waiting", release)
    fleet.report("b", "", "idle", "")
    fleet.report("c", "r-other", "fetch", "f" * 64)
    fleet.report("d", "r-other", "idle", release, "committed", release)
    assert fleet.show(rollout)["counts"]["started"] == 0


def test_pausing_withdraws_offers_that_have_not_begun(fleet: Fleet) -> None:
    """Paused: devices that started go on, the others get their old wish back; resuming offers again."""
    release = fleet.publish(1)
    rollout = fleet.start()
    fleet.deliver()
    fleet.report("a", rollout, "fetch", release)
    rollouts.operate(fleet.hub, "me", rollout, "pause")
    withdrawn = fleet.deliver()
    assert set(withdrawn) == {"b", "c", "d"}
    assert all(desired.slots["main"].action == "none" for desired in withdrawn.values())
    rollouts.operate(fleet.hub, "me", rollout, "resume")
    assert {name: desired.slots["main"].action for name, desired in fleet.deliver().items()} == dict.fromkeys("bcd", "run")
    for name in "abcd":
        fleet.commit(name, rollout, release)
    assert fleet.show(rollout)["status"] == "finished"


def committed(fleet: Fleet, version: int) -> tuple[str, str]:
    """Bring a release to everybody: (release, rollout)."""
    release = fleet.publish(version)
    rollout = fleet.start(version)
    fleet.deliver()
    for name in fleet.devices:
        fleet.commit(name, rollout, release, version)
    assert fleet.show(rollout)["status"] == "finished"
    return release, rollout


def test_revert_gives_everybody_the_previous_release(fleet: Fleet) -> None:
    """abort revert: new desired documents name the previous release, and the rollout ends when all run it again."""
    old, _ = committed(fleet, 1)
    _, rollout = committed(fleet, 2)
    assert rollouts.operate(fleet.hub, "me", rollout, "abort", "revert")["status"] == "reverting"
    back = fleet.deliver()
    assert {name: desired.slots["main"].release for name, desired in back.items()} == dict.fromkeys("abcd", old)
    for name in "abc":
        fleet.report(name, back[name].slots["main"].rollout, "idle", old, "committed", old)
    assert fleet.show(rollout)["status"] == "reverting"
    fleet.report("d", back["d"].slots["main"].rollout, "idle", old, "committed", old)
    assert (fleet.show(rollout)["status"], fleet.show(rollout)["reverted"]) == ("aborted", 4)


def test_revert_of_a_first_release_empties_the_slot(fleet: Fleet) -> None:
    """Devices that had nothing before are wished to hold nothing."""
    release, rollout = committed(fleet, 1)
    rollouts.operate(fleet.hub, "me", rollout, "abort", "revert")
    back = fleet.deliver()
    assert {desired.slots["main"].action for desired in back.values()} == {"none"}
    fleet.report("a", rollout, "fetch", release, "", release)
    assert fleet.show(rollout)["reverted"] == 0
    for name in "abcd":
        fleet.report(name, rollout, "idle", "", "removed")
    assert fleet.show(rollout)["status"] == "aborted"


def test_a_newer_rollout_is_not_undone_by_an_older_ones_revert(fleet: Fleet) -> None:
    """Reverting version 1 after version 2 has gone out leaves version 2 alone."""
    _, first = committed(fleet, 1)
    newer, _ = committed(fleet, 2)
    rollouts.operate(fleet.hub, "me", first, "abort", "revert")
    assert fleet.deliver() == {}
    fleet.devices["a"].boot = "b" * 32
    fleet.up("a", "presence", fleet.devices["a"].presence())
    with fleet.hub.store.read() as tx:
        assert (wish_of(tx, "a", "main") or {})["release"] == newer


def test_a_variant_that_fits_nobody_is_unfit(fleet: Fleet) -> None:
    """A device whose class no variant supports settles as unfit without being sent anything."""
    fleet.publish(1, classes=("arm-dot",))
    rollout = fleet.start()
    shown = fleet.show(rollout)
    assert {row["verdict"] for row in shown["devices"]} == {"unfit"} and fleet.deliver() == {}
    assert {row["reason"] for row in shown["devices"]} == {"no-variant"}


def test_silence_after_activation_becomes_a_failure(fleet: Fleet, clock: Clock) -> None:
    """Quiet devices are shown as unknown first, then fail as silent; those that still speak do not."""
    release = fleet.publish(1)
    policy = {"dwell_s": 0, "silence_s": 60, "silence_failure_s": 120, "success_fraction": 0.5}
    rollout = fleet.start(policy=policy)
    fleet.deliver()
    for name in "ab":
        fleet.report(name, rollout, "trial", release)
    for _ in range(7):
        clock.now += 10
        fleet.report("b", rollout, "trial", release)
        reconcile.tick(fleet.hub)
    assert fleet.show(rollout)["counts"]["unknown"] == 1
    for _ in range(6):
        clock.now += 10
        fleet.report("b", rollout, "trial", release)
        reconcile.tick(fleet.hub)
    counts = fleet.show(rollout)["counts"]
    assert (counts["silent"], counts["unknown"], counts["started"]) == (1, 0, 2)
    fleet.report("a", rollout, "idle", release, "committed", release)
    assert fleet.show(rollout)["counts"]["committed"] == 0


def test_a_goodbye_pauses_the_deadlines(fleet: Fleet, clock: Clock) -> None:
    """A device that left politely is neither silent nor late, however long it stays away."""
    release = fleet.publish(1)
    rollout = fleet.start(policy={"dwell_s": 0, "silence_s": 60, "silence_failure_s": 120, "device_deadline_s": 300})
    fleet.deliver()
    fleet.report("a", rollout, "trial", release)
    fleet.up("a", "presence", fleet.devices["a"].presence("goodbye"))
    clock.now += 10_000
    reconcile.tick(fleet.hub)
    counts = fleet.show(rollout)["counts"]
    assert (counts["silent"], counts["failed"], counts["unknown"]) == (0, 0, 0)
    fleet.up("a", "presence", fleet.devices["a"].presence())
    clock.now += 299
    fleet.report("a", rollout, "trial", release)
    reconcile.tick(fleet.hub)
    assert fleet.show(rollout)["counts"]["failed"] == 0
    clock.now += 2
    reconcile.tick(fleet.hub)
    assert fleet.show(rollout)["counts"]["failed"] == 1


def test_a_dwell_is_waited_out_by_ticks(fleet: Fleet, clock: Clock) -> None:
    """Time alone moves a wave on, once its dwell is over."""
    release = fleet.publish(1)
    rollout = fleet.start(waves="1,100%", policy={"dwell_s": 100})
    first = order_of(fleet, rollout)[0]
    fleet.deliver()
    fleet.commit(first, rollout, release)
    clock.now += 99
    reconcile.tick(fleet.hub)
    assert fleet.show(rollout)["wave"] == 1
    clock.now += 1
    reconcile.tick(fleet.hub)
    assert fleet.show(rollout)["wave"] == 2


def test_offline_devices_come_last_and_do_not_block(hub: Hub, clock: Clock) -> None:
    """Devices nobody has heard of are in later waves, and are sent their wish when they come."""
    fleet = Fleet(hub, clock, ["a", "b", "c", "d"])
    fleet.up("c", "presence", fleet.devices["c"].presence())
    release = fleet.publish(1)
    rollout = fleet.start(waves="1,100%")
    assert order_of(fleet, rollout)[0] == "c"
    fleet.letters()
    fleet.commit("c", rollout, release)
    fleet.letters()
    fleet.up("a", "presence", fleet.devices["a"].presence())
    assert fleet.deliver()["a"].slots["main"].release == release


def test_a_restart_in_the_middle_changes_nothing(fleet: Fleet, clock: Clock) -> None:
    """A manager opened anew on the same folder goes on where the old one was: nothing lived in memory only."""
    release = fleet.publish(1)
    rollout = fleet.start(waves="1,100%")
    first = order_of(fleet, rollout)[0]
    fleet.hub.store.close()
    fleet.hub = open_hub(fleet.hub.layout.root, clock)
    fleet.reopen()
    assert set(fleet.deliver()) == {first}
    fleet.commit(first, rollout, release)
    assert len(fleet.deliver()) == 3
    fleet.hub.close()


def test_resuming_a_halted_rollout_under_a_newer_one_is_a_conflict(fleet: Fleet) -> None:
    """A halted rollout gives way to a new one and cannot be resumed while that runs."""
    release = fleet.publish(1)
    old = fleet.start(waves="1,100%")
    first = order_of(fleet, old)[0]
    fleet.report(first, old, "trial", release)
    fleet.report(first, old, "idle", release, "failed")
    assert fleet.show(old)["status"] == "halted"
    fleet.publish(2)
    fleet.start(2)
    with pytest.raises(Misuse, match="rollout-conflict"):
        rollouts.operate(fleet.hub, "me", old, "resume")


def test_a_trial_beyond_all_bounds_is_refused(fleet: Fleet) -> None:
    """A limit that no device could keep in its record is refused before anything is ordered, by the reader that devices use."""
    fleet.publish(1)
    for name, value in (("window_s", 2**53 - 1), ("attempts", 0), ("load_ms", 3_600_001)):
        with pytest.raises(Rejected, match=rf"trial: field '{name}' must be an integer"):
            fleet.start(1, trial={name: value})
    assert fleet.start(1, trial={"window_s": 7 * 86_400})
