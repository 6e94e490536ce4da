"""Whole rollouts through the real manager and real straws, in weather no fleet will see: what must hold, holds under every seed."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .world import STORM, Founded, World

HERE = Path(__file__).parents[2]
SEEDS = range(int(os.environ.get("EDGEOPS_SIM_SEEDS", "40")))
LARGE_SEEDS = range(int(os.environ.get("EDGEOPS_SIM_LARGE_SEEDS", "1")))
# What a message that is late, doubled or of a link that broke is refused for; a bad signature would have another reason.
HARMLESS = {"stale-birth", "stale-report", "unknown-stream"}


def travel(world: World, storm_s: float = 30) -> None:
    """A rollout of release 2 through a storm of so long, until every straw runs it and the manager knows."""
    world.begin()
    world.air.run(3.0)
    everybody = len(world.straws)
    assert world.whole(1) == everybody
    rollout = world.start(2)
    world.trouble(storm_s)
    assert world.until(lambda: world.status(rollout) == "finished", 300, 4.0), world.fleet.show(rollout)["counts"]
    assert world.until(lambda: world.whole(2) == everybody, 300)
    assert world.until(lambda: told(world, rollout) == everybody, 900, 4.0)
    assert set(world.refusals()) <= HARMLESS


def told(world: World, rollout: str) -> int:
    """How many straws the manager shows as done, and know that it knows."""
    shown = {row["device"]: row["verdict"] for row in world.fleet.show(rollout)["devices"]}
    done = [name for name, made in world.straws.items() if not made.record.slots["main"].outbox]
    return sum(shown[name] == "committed-unproven" for name in done)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_rollout_comes_through_any_storm(small: Founded, worlds: Callable[..., World], seed: int) -> None:
    """Lost, doubled and late messages, cut links, power cuts and an intruder: no straw ever runs what it was not ordered,
    no counter goes back, nothing is acted on before it is stored, every report verifies, and in the end all run the release."""
    travel(worlds(small, seed, STORM))


@pytest.mark.parametrize("seed", LARGE_SEEDS)
def test_fifty_straws_come_through(large: Founded, worlds: Callable[..., World], seed: int) -> None:
    """The same with fifty straws, which hold one copy of both releases between them."""
    world = worlds(large, seed, STORM)
    travel(world)
    assert world.shelf.bytes_held <= 2 * 152_000


def test_the_same_seed_gives_the_same_run(small: Founded, worlds: Callable[..., World]) -> None:
    """A world is replayable: the same seed gives the same messages at the same times."""
    runs = []
    for _ in range(2):
        world = worlds(small, 7, STORM)
        travel(world)
        runs.append((world.clock.at, dict(world.fleet.ingest.counts), world.refused, world.high))
    assert runs[0] == runs[1]


def test_a_seed_is_played_again_in_another_process() -> None:
    """What fails in a long run can be looked at alone: the same seed gives the same world in every process."""
    command = [sys.executable, "-m", "tests.sim.seeds", "--seed", "3053"]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE).stdout for _ in range(2)]
    assert runs[0] == runs[1] and runs[0].startswith("seed 3053: ")


def test_the_intruder_was_there(small: Founded, worlds: Callable[..., World]) -> None:
    """The storm is not a breeze: over a few seeds straws refuse replayed, forged and misdirected orders and wrong frames."""
    reasons: set[str] = set()
    for seed in range(4):
        world = worlds(small, seed, STORM)
        travel(world)
        for made in world.straws.values():
            reasons |= made.record.counters.keys()
    assert {
        "refused_desired.replay", "refused_desired.unknown-key", "refused_desired.wrong-device", "refused_blocks.bad-frame",
        "duplicate_desired",
    } <= reasons  # fmt: skip
