"""Barriers between the real manager and real straws: everybody or nobody, in weather, through restarts of either side."""

import os
from collections.abc import Callable

import pytest

from edgeops_agent.core.health import Verdict
from edgeops_agent.core.slot import Target
from edgeops_agent.sim.ports import untouched

from .world import CALM, STORM, Founded, World

BARRIER = {"conditions": {"barrier": True, "commit_wait_s": 600}, "waves": "100%"}
SEEDS = range(int(os.environ.get("EDGEOPS_SIM_BARRIER_SEEDS", "6")))


@pytest.fixture
def calm(small: Founded, worlds: Callable[..., World]) -> World:
    """Six straws that run release 1, online, in fine weather."""
    return begun(worlds(small, 0, CALM))


def begun(world: World) -> World:
    """A world whose straws have connected."""
    world.begin()
    world.air.run(3.0)
    return world


def committed(world: World, version: int) -> list[str]:
    """The straws that would run this version after a power cut."""
    wanted = world.releases[version]
    current = {name: made.record.slots["main"].current for name, made in world.straws.items()}
    return sorted(name for name, build in current.items() if build and build.release == wanted)


def phases(world: World) -> set[str]:
    """The phases in which the straws are."""
    return {made.record.slots["main"].phase for made in world.straws.values()}


def test_nobody_commits_before_all_have_passed(calm: World) -> None:
    """One trial takes longer: the others wait at the barrier, trying the new one and committed to the old; then all commit."""
    slow = sorted(calm.straws)[3]
    calm.verdicts = lambda name, target, elapsed: untouched(target, elapsed - 60 if name == slow else elapsed)
    rollout = calm.start(2, **BARRIER)
    calm.air.run(calm.clock.at + 40)
    assert {name: made.record.slots["main"].phase for name, made in calm.straws.items()} == {
        name: "trial" if name == slow else "proven" for name in calm.straws
    }
    assert (committed(calm, 2), committed(calm, 1)) == ([], sorted(calm.straws))
    assert calm.fleet.show(rollout)["phases"] == {"proven": 5, "trial": 1}
    assert calm.until(lambda: calm.status(rollout) == "finished", 120)
    assert committed(calm, 2) == sorted(calm.straws)


def test_one_that_fails_takes_all_back(calm: World) -> None:
    """Nobody ever commits; everybody runs release 1 again, and the manager knows."""
    bad = sorted(calm.straws)[2]

    def verdict(name: str, target: Target, elapsed: float) -> Verdict:
        return Verdict(True, "error-rate") if name == bad and elapsed > 8 else untouched(target, elapsed - 5 * (name == bad))

    calm.verdicts = verdict
    rollout = calm.start(2, **BARRIER)
    assert calm.until(lambda: calm.status(rollout) == "halted", 60)
    assert calm.until(lambda: phases(calm) == {"idle"} and calm.whole(1) == len(calm.straws), 60)
    assert committed(calm, 2) == []
    calm.air.run(calm.clock.at + 60)
    shown = calm.fleet.show(rollout)
    assert shown["why"].startswith("barrier-broken: ")
    assert {row["status"] for row in shown["devices"]} == {"settled", "reverted"}


def test_a_straw_that_loses_power_at_the_barrier_proves_itself_again(calm: World) -> None:
    """It begins anew, and only when it is back at the barrier all commit."""
    slow, cut = sorted(calm.straws)[:2]
    calm.verdicts = lambda name, target, elapsed: untouched(target, elapsed - 30 if name == slow else elapsed)
    rollout = calm.start(2, **BARRIER)
    assert calm.until(lambda: calm.straws[cut].record.slots["main"].phase == "proven", 60)
    calm.air.cut(cut)
    calm.air.link(cut).filters.clear()
    calm.straws[cut] = calm._start(cut)
    calm.air.run(calm.clock.at + 60)
    assert (committed(calm, 2), calm.straws[slow].record.slots["main"].phase) == ([], "proven")
    calm._join(cut)
    assert calm.until(lambda: calm.status(rollout) == "finished", 120)
    assert committed(calm, 2) == sorted(calm.straws)


def test_a_straw_waits_until_its_facts_allow(calm: World) -> None:
    """Nobody starts while no fact holds; each goes on as soon as its own does."""
    parked: dict[str, object] = {}
    for made in calm.straws.values():
        object.__setattr__(made.ports, "facts", lambda: dict(parked))
    rollout = calm.start(2, waves="100%", conditions={"fetch_when": "parked", "offline_commit": "wait"})
    calm.air.run(calm.clock.at + 45)
    shown = calm.fleet.show(rollout)
    assert (shown["counts"]["started"], shown["phases"]) == (0, {"waiting": len(calm.straws)})
    parked["parked"] = True
    assert calm.until(lambda: calm.status(rollout) == "finished", 120)


@pytest.mark.parametrize("seed", SEEDS)
def test_everybody_or_nobody_in_any_storm(small: Founded, worlds: Callable[..., World], seed: int) -> None:
    """Lost, doubled and late messages, cut links, power cuts and an intruder, and in some seeds a straw that fails: while nobody
    has failed none goes back, nobody commits before the decision, and in the end all run the same release."""
    fails = seed % 3 == 0
    world = begun(worlds(small, seed, STORM))
    bad = world.random.choice(sorted(world.straws)) if fails else ""
    world.verdicts = lambda name, target, elapsed: (
        Verdict(True, "error-rate") if name == bad and target.build and target.build.version == 2 else untouched(target, elapsed)
    )
    rollout = world.start(2, **BARRIER)
    world.trouble(30)
    ended = "halted" if fails else "finished"

    def watched() -> bool:
        decision = world.fleet.show(rollout)["waves"][0]["decision"]
        assert decision == "commit" or committed(world, 2) == [], "committed before the decision"
        return world.status(rollout) == ended

    assert world.until(watched, 900), world.fleet.show(rollout)
    assert world.until(lambda: phases(world) == {"idle"}, 900)
    assert world.until(lambda: len(committed(world, 1 if fails else 2)) == len(world.straws), 900)
