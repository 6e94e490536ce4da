"""All or nothing at a barrier: who is told to commit, when, and who gets back what it had."""

import pytest
from manager_house import Clock, Fleet

from edgeops.manager import barriers, enrol, reconcile, rollouts
from edgeops.manager.hub import Hub, open_hub
from edgeops.store import audit
from edgeops.wire.errors import Misuse
from edgeops.wire.messages import OutcomeReport, SlotReport

ALL = ("a", "b", "c", "d")
BARRIER = {"conditions": {"barrier": True, "commit_wait_s": 4_000}}


@pytest.fixture
def fleet(hub: Hub, clock: Clock) -> Fleet:
    """Four devices that are online and run release 1."""
    return running_one(hub, clock)


def running_one(hub: Hub, clock: Clock) -> Fleet:
    """Four enrolled devices that are online and run release 1."""
    made = Fleet(hub, clock, ALL)
    made.births()
    made.letters()
    release = made.publish(1)
    rollout = made.start(1)
    made.deliver()
    for name in ALL:
        made.commit(name, rollout, release)
    assert made.show(rollout)["status"] == "finished"
    made.letters()
    return made


def begin(fleet: Fleet, **other: object) -> tuple[str, str]:
    """A barrier rollout of release 2 to all in one wave: (rollout, release); everybody has the order."""
    release = fleet.publish(2)
    rollout = fleet.start(2, **BARRIER | other)
    fleet.deliver()
    return rollout, release


def prove(fleet: Fleet, rollout: str, release: str, *names: str) -> None:
    """Devices pass their trial and wait."""
    old = running(fleet)
    for name in names:
        fleet.report(name, rollout, "proven", release, runs=old)


def running(fleet: Fleet) -> str:
    """The release everybody was wished to run before."""
    with fleet.hub.store.read() as tx:
        return str(tx.exec_driver_sql("select digest from releases where version = 1").scalar())


def told(fleet: Fleet) -> dict[str, list[int]]:
    """Deliver what is waiting; the orders under which each device was told to commit."""
    for device in fleet.devices.values():
        device.commands.clear()
    fleet.believed = fleet.deliver()  # type: ignore[attr-defined]
    found = {name: [one.upto for one in device.commands if one.kind == "commit"] for name, device in fleet.devices.items()}
    return {name: orders for name, orders in found.items() if orders}


def given_back(fleet: Fleet) -> dict[str, str]:
    """What the documents delivered by the latest `told` order each device to run."""
    return {name: desired.slots["main"].release for name, desired in fleet.believed.items()}  # type: ignore[attr-defined]


def verdicts(fleet: Fleet, rollout: str) -> dict[str, str]:
    """Assignment status by device."""
    return {row["device"]: row["status"] for row in fleet.show(rollout)["devices"]}


def said(fleet: Fleet) -> str:
    """Everything in the audit log, as one text."""
    with fleet.hub.store.read() as tx:
        return "\n".join(str(entry) for entry in audit.page(tx, 1000, audit.Wanted()))


def test_all_are_told_when_the_last_has_passed(fleet: Fleet) -> None:
    """Nobody is told to commit before every device of the wave waits; then each, under the order it has proven."""
    rollout, release = begin(fleet)
    prove(fleet, rollout, release, "a", "b", "c")
    fleet.report("d", rollout, "trial", release, runs=running(fleet))
    assert told(fleet) == {}
    shown = fleet.show(rollout)
    assert shown["phases"] == {"proven": 3, "trial": 1}
    assert (shown["waves"][0]["proven"], shown["waves"][0]["decision"]) == (3, "")
    prove(fleet, rollout, release, "d")
    assert told(fleet) == {name: [fleet.devices[name].trust.counter] for name in ALL}  # type: ignore[union-attr]
    assert fleet.show(rollout)["waves"][0]["decision"] == "commit"
    assert "4 of 4 devices are ready at the barrier: all may commit" in said(fleet)
    for name in ALL:
        fleet.report(name, rollout, "idle", release, "committed", release, 2)
    assert (fleet.show(rollout)["status"], told(fleet)) == ("finished", {})


def test_whoever_still_waits_after_the_decision_is_told_again(fleet: Fleet) -> None:
    """A device that has restarted comes to the barrier anew, under a newer order even; it is told each time it says so."""
    rollout, release = begin(fleet)
    prove(fleet, rollout, release, *ALL)
    told(fleet)
    fleet.report("a", rollout, "fetch", release, runs=running(fleet))
    assert told(fleet) == {}
    prove(fleet, rollout, release, "a", "b")
    assert set(told(fleet)) == {"a", "b"}
    prove(fleet, rollout, release, "a")
    assert set(told(fleet)) == {"a"}


def test_commands_have_numbers_of_their_own(fleet: Fleet) -> None:
    """A report with outcomes at the barrier is answered with a commit and an ack that the device believes both."""
    rollout, release = begin(fleet)
    prove(fleet, rollout, release, *ALL)
    told(fleet)
    device = fleet.devices["a"]
    report = SlotReport("proven", rollout=rollout, target=release)
    ended = OutcomeReport("main", 1, "r-before", "e" * 64, "failed", "x", "")
    fleet.up("a", "state", device.state({"main": report}, device.trust.counter, outcomes=(ended,)))  # type: ignore[union-attr]
    told(fleet)
    assert sorted(one.kind for one in device.commands) == ["ack", "commit"]


@pytest.mark.parametrize("verdict", ["rolled-back", "failed", "unfit"])
def test_one_that_is_lost_before_the_decision_ends_it_for_all(fleet: Fleet, verdict: str) -> None:
    """The rollout halts, nobody is told to commit, everybody is ordered back, and who comes to the barrier later is not told."""
    rollout, release = begin(fleet)
    prove(fleet, rollout, release, "a", "b", "c")
    fleet.report("d", rollout, "idle", release, verdict, running(fleet))
    assert told(fleet) == {}
    assert given_back(fleet) == dict.fromkeys(ALL, running(fleet))
    shown = fleet.show(rollout)
    assert shown["status"] == "halted" and shown["why"].startswith("barrier-broken: 1 of the 4")
    prove(fleet, rollout, release, *ALL)
    reconcile.tick(fleet.hub)
    assert told(fleet) == {}
    for name in "abc":
        fleet.report(name, "", "idle", running(fleet), "committed", running(fleet))
    assert verdicts(fleet, rollout) == {"a": "reverted", "b": "reverted", "c": "reverted", "d": "settled"}


def test_going_back_waits_for_nothing(fleet: Fleet) -> None:
    """The order to go back carries none of the conditions under which that release once came."""
    first, release = begin(fleet)
    prove(fleet, first, release, *ALL)
    told(fleet)
    for name in ALL:
        fleet.report(name, first, "idle", release, "committed", release, 2)
    newer = fleet.publish(3)
    second = fleet.start(3, **BARRIER)
    told(fleet)
    fleet.report("a", second, "trial", newer, runs=release, version=2)
    fleet.report("a", second, "idle", newer, "rolled-back", release, 2)
    told(fleet)
    found = fleet.believed["a"]  # type: ignore[attr-defined]
    assert (found.slots["main"].release, found.slots["main"].conditions.barrier, found.must) == (release, "", ())


def test_a_wave_whose_time_is_over_goes_back(fleet: Fleet, clock: Clock) -> None:
    """One device never comes: at the wave's timeout nobody commits and everybody goes back."""
    rollout, release = begin(fleet, policy={"dwell_s": 0, "wave_timeout_s": 600})
    prove(fleet, rollout, release, "a", "b", "c")
    clock.now += 599
    reconcile.tick(fleet.hub)
    assert (told(fleet), fleet.show(rollout)["status"]) == ({}, "running")
    clock.now += 1
    reconcile.tick(fleet.hub)
    assert told(fleet) == {}
    assert set(given_back(fleet)) == set(ALL)
    assert fleet.show(rollout)["why"].startswith("barrier-late: ")


def test_no_decision_near_the_first_devices_deadline(fleet: Fleet, clock: Clock) -> None:
    """The first came long ago and would soon give up by itself: the last one comes too late, and all go back."""
    rollout, release = begin(fleet)
    clock.now += 50
    fleet.report("a", rollout, "trial", release, runs=running(fleet))
    clock.now += 50
    prove(fleet, rollout, release, "a")
    clock.now += 4_000 - 50 - 300  # of its 4,000 s, counted from the report before, at most 300 are the margin
    prove(fleet, rollout, release, "b", "c", "d")
    assert told(fleet) == {}
    assert fleet.show(rollout)["why"].startswith("barrier-late: ")
    assert set(given_back(fleet)) == set(ALL)


def test_who_is_away_holds_the_decision_up(fleet: Fleet, clock: Clock) -> None:
    """A proven device that has left is not told behind its back: the decision waits until all are there at once."""
    rollout, release = begin(fleet)
    prove(fleet, rollout, release, "a")
    fleet.up("a", "presence", fleet.devices["a"].presence("goodbye"))
    clock.now += 5
    prove(fleet, rollout, release, "b", "c", "d")
    reconcile.tick(fleet.hub)
    assert told(fleet) == {}
    fleet.up("a", "presence", fleet.devices["a"].presence())
    fleet.letters()
    reconcile.tick(fleet.hub)
    assert set(told(fleet)) == set(ALL)


def test_who_leaves_the_fleet_ends_it_for_all_before_the_decision(fleet: Fleet) -> None:
    """A revoked device will never commit, so nobody does."""
    rollout, release = begin(fleet)
    prove(fleet, rollout, release, "a", "b", "c")
    enrol.revoke(fleet.hub, "me", "d")
    fleet.letters()
    reconcile.tick(fleet.hub)
    assert told(fleet) == {}
    shown = fleet.show(rollout)
    assert shown["status"] == "halted" and shown["reasons"][0]["text"] == "not-enrolled"
    assert set(given_back(fleet)) == {"a", "b", "c"}


def test_who_leaves_the_fleet_after_the_decision_takes_nobody_back(fleet: Fleet) -> None:
    """The others have been let commit; that one is no longer theirs to wait for."""
    rollout, release = begin(fleet)
    prove(fleet, rollout, release, *ALL)
    told(fleet)
    enrol.revoke(fleet.hub, "me", "d")
    fleet.letters()
    reconcile.tick(fleet.hub)
    for name in "abc":
        fleet.report(name, rollout, "idle", release, "committed", release, 2)
    assert (told(fleet), given_back(fleet), fleet.show(rollout)["status"]) == ({}, {}, "finished")


def test_one_that_went_back_after_the_decision_takes_the_others_back(fleet: Fleet) -> None:
    """The window nobody can close: a device timed out while the word was on its way. It is said, and the others are recalled."""
    rollout, release = begin(fleet)
    prove(fleet, rollout, release, *ALL)
    assert set(told(fleet)) == set(ALL)
    for name in "ab":
        fleet.report(name, rollout, "idle", release, "committed", release, 2)
    fleet.report("d", rollout, "idle", release, "rolled-back", running(fleet))
    assert told(fleet) == {}
    assert given_back(fleet) == dict.fromkeys(ALL, running(fleet))
    shown = fleet.show(rollout)
    assert shown["status"] == "halted" and shown["why"].startswith("barrier-split: a device of wave 1 went back")
    assert shown["why"] in said(fleet)
    prove(fleet, rollout, release, "c")
    assert told(fleet) == {}


def test_a_manager_killed_between_decision_and_word_goes_on(fleet: Fleet, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decision is stored; what was not sent is sent when the devices next say that they wait."""
    rollout, release = begin(fleet)
    prove(fleet, rollout, release, "a", "b", "c")
    with monkeypatch.context() as patch:
        patch.setattr(barriers, "let_commit", lambda *_: None)  # the process died after its transaction and lost its letters
        prove(fleet, rollout, release, "d")
    assert told(fleet) == {}
    fleet.hub.store.close()
    fleet.hub = open_hub(fleet.hub.layout.root, clock)
    fleet.reopen()
    prove(fleet, rollout, release, *ALL)
    assert set(told(fleet)) == set(ALL)
    fleet.hub.close()


def test_letters_survive_the_manager(fleet: Fleet, clock: Clock) -> None:
    """Killed right after the decision: the commands wait in the outbox of the one that starts next."""
    rollout, release = begin(fleet)
    prove(fleet, rollout, release, *ALL)
    fleet.hub.store.close()
    fleet.hub = open_hub(fleet.hub.layout.root, clock)
    fleet.reopen()
    assert set(told(fleet)) == set(ALL)
    fleet.hub.close()


def test_waves_are_barriers_of_their_own(fleet: Fleet) -> None:
    """The second wave opens when the first has committed; when it breaks, the first keeps what it has."""
    rollout, release = begin(fleet, waves="2,100%")
    first, second = ([row["device"] for row in fleet.show(rollout)["devices"] if row["wave"] == wave] for wave in (1, 2))
    prove(fleet, rollout, release, *first)
    assert set(told(fleet)) == set(first)
    for name in first:
        fleet.report(name, rollout, "idle", release, "committed", release, 2)
    told(fleet)
    assert {desired.slots["main"].conditions.barrier for desired in fleet.believed.values()} == {f"{rollout}-2"}  # type: ignore[attr-defined]
    fleet.report(second[0], rollout, "trial", release, runs=running(fleet))
    fleet.report(second[0], rollout, "idle", release, "rolled-back", running(fleet))
    told(fleet)
    assert set(given_back(fleet)) == set(second)
    assert {name: status for name, status in verdicts(fleet, rollout).items() if name in first} == dict.fromkeys(first, "settled")


@pytest.mark.parametrize("mode", ["keep", "revert"])
def test_aborting_before_the_decision_gives_everything_back(fleet: Fleet, mode: str) -> None:
    """Nobody is left waiting at a barrier nobody will open, whatever the mode."""
    rollout, release = begin(fleet)
    prove(fleet, rollout, release, "a", "b")
    rollouts.operate(fleet.hub, "me", rollout, "abort", mode)
    assert told(fleet) == {}
    assert given_back(fleet) == dict.fromkeys(ALL, running(fleet))


def test_what_an_operator_may_not_do_at_a_barrier(fleet: Fleet) -> None:
    """Advance would leave a wave undecided behind; a wave that was taken back cannot be resumed."""
    rollout, release = begin(fleet)
    with pytest.raises(Misuse, match="barrier-undecided"):
        rollouts.operate(fleet.hub, "me", rollout, "advance")
    fleet.report("a", rollout, "idle", release, "failed", running(fleet))
    with pytest.raises(Misuse, match="barrier-broken"):
        rollouts.operate(fleet.hub, "me", rollout, "resume")


def test_a_revoked_device_is_not_counted(fleet: Fleet) -> None:
    """It had proven the release before it was revoked: the last report of another one decides nothing."""
    rollout, release = begin(fleet)
    prove(fleet, rollout, release, "a", "b", "c")
    enrol.revoke(fleet.hub, "me", "c")
    fleet.letters()
    prove(fleet, rollout, release, "d")
    assert told(fleet) == {}


def test_nothing_is_decided_while_paused(fleet: Fleet) -> None:
    """All wait, but the operator holds the rollout; on resuming they are let commit."""
    rollout, release = begin(fleet)
    prove(fleet, rollout, release, "a", "b", "c")
    fleet.report("d", rollout, "fetch", release, runs=running(fleet))
    rollouts.operate(fleet.hub, "me", rollout, "pause")
    prove(fleet, rollout, release, "d")
    assert told(fleet) == {}
    rollouts.operate(fleet.hub, "me", rollout, "resume")
    assert set(told(fleet)) == set(ALL)


def test_a_device_that_runs_the_release_already_is_ready(fleet: Fleet) -> None:
    """It ends as committed at once; the others are not held up by it."""
    rollout, release = begin(fleet)
    fleet.report("a", rollout, "idle", release, "committed", release, 2)
    prove(fleet, rollout, release, "b", "c")
    assert told(fleet) == {}
    prove(fleet, rollout, release, "d")
    assert set(told(fleet)) == {"b", "c", "d"}


@pytest.mark.parametrize("phase", ["waiting", "fetch", "trial"])
def test_a_device_back_at_the_beginning_is_not_ready(fleet: Fleet, phase: str) -> None:
    """A restart takes a proven device back to fetching or waiting: it must prove itself again before anybody commits."""
    rollout, release = begin(fleet)
    prove(fleet, rollout, release, "a", "b", "c")
    fleet.report("a", rollout, phase, release, runs=running(fleet))
    prove(fleet, rollout, release, "d")
    assert told(fleet) == {}
    prove(fleet, rollout, release, "a")
    assert set(told(fleet)) == set(ALL)


def test_no_word_under_an_order_yet_to_come(fleet: Fleet) -> None:
    """A device that claims a higher order than it was given is told to commit only up to what it was given."""
    rollout, release = begin(fleet)
    prove(fleet, rollout, release, "a", "b", "c")
    device, given = fleet.devices["d"], fleet.devices["d"].trust.counter  # type: ignore[union-attr]
    fleet.up("d", "state", device.state({"main": SlotReport("proven", rollout=rollout, target=release)}, given + 9))
    assert all(order <= given for order in told(fleet)["d"])
