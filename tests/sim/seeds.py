"""Many seeds of the storm: `python -m tests.sim.seeds --seeds 2000`, or `--seed 1234` to play one of them again."""

import argparse
import functools
import gc
import hashlib
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

from .test_storm import travel
from .world import STORM, Founded, World, found, settle

STRAWS, SHARE, STORM_S = 3, 25, 20
WEATHER = replace(STORM, deeds=STORM.deeds // 2)
"""As much for each straw as the six of the tests get."""


@functools.cache
def begun() -> tuple[Path, Founded]:
    """A folder of this process, and the place every one of its worlds begins at."""
    logging.disable(logging.WARNING)  # thousands of refused messages are what this is about
    folder = Path(tempfile.mkdtemp(prefix="edgeops-seeds-"))
    start = settle(found(folder / "m", STRAWS))
    gc.freeze()
    gc.set_threshold(50_000)  # the worlds are short, and looking for garbage is a tenth of them
    return folder, start


def play(seed: int, seen: Callable[[World], None] = lambda world: None) -> str:
    """What was violated under a seed, empty for nothing; `seen` may look at the world when all is over."""
    folder, start = begun()
    place = folder / f"w{seed}"
    world = World(start, place, seed, WEATHER)
    try:
        travel(world, STORM_S)
        return ""
    except AssertionError as error:
        return f"seed {seed}: {type(error).__name__} {error}"
    finally:
        seen(world)
        world.close()
        shutil.rmtree(place)


def mark(world: World) -> str:
    """A digest of all that a world has come to; equal in every process."""
    told = (world.clock.at, sorted(world.fleet.ingest.counts.items()), world.refused, sorted(world.high.items()))
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def some(seeds: Iterable[int]) -> list[str]:
    """The violations under these seeds."""
    return [said for said in map(play, seeds) if said]


def run(seeds: int, say: Callable[[str], None] = print, parts: int = 2, first: int = 1000) -> tuple[int, list[str]]:
    """(seeds played, violations); says how many seeds a second that makes."""
    shares = [range(at, min(at + SHARE, first + seeds)) for at in range(first, first + seeds, SHARE)]
    began, violations, played = time.monotonic(), list[str](), 0
    with ProcessPoolExecutor(parts, mp_context=get_context("spawn")) as pool:
        for share, found_ones in zip(shares, pool.map(some, shares), strict=True):
            violations += found_ones
            played += len(share)
            if played % (SHARE * 8) == 0 or played == seeds:
                rate = played / (time.monotonic() - began)
                say(f"network: seeds {played} of {seeds}, violations {len(violations)}, {rate:.1f} seeds/s")
    return played, violations


def again(seed: int) -> list[str]:
    """The violation under one seed, after a line by which to see that it was played again just as before."""
    said = play(seed, lambda world: print(f"seed {seed}: {mark(world)}"))
    return [said] if said else []


def main() -> int:
    """Play many seeds, or one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many")
    parser.add_argument("--seed", type=int, help="only this one")
    options = parser.parse_args()
    violations = again(options.seed) if options.seed is not None else run(options.seeds)[1]
    print("\n".join(violations) or "no violation")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
