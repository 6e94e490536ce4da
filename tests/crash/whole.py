"""`make crash`: all that may go wrong with a device's power, disk, process and network, searched whole, and one line at the end."""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import edgeops_agent.core.update as product

from ..sim import seeds as network
from . import bugs, killing, proof
from .cases import explore
from .mutated import BUGS, is_caught

PARTS, EVERY = 2, 12


def core(part: int) -> tuple[int, list[str]]:
    """(distinct cuts, violations) of one half of the worlds of the update machine."""
    return explore(product, every=EVERY, part=part, parts=PARTS)


def _teller(began: float) -> Callable[[str], None]:
    """Says things with the seconds since the beginning."""
    return lambda text: print(f"{time.monotonic() - began:4.0f} s  {text}", flush=True)


def _cuts(say: Callable[[str], None]) -> tuple[int, list[str], int]:
    """(cuts, violations, seeded bugs caught) of the pure core."""
    with ProcessPoolExecutor(PARTS, mp_context=get_context("spawn")) as pool:
        halves = list(pool.map(core, range(PARTS)))
        cuts, violations = sum(count for count, _ in halves), [one for _, found in halves for one in found]
        say(f"pure core: cuts {cuts}, violations {len(violations)}")
        caught = sum(pool.map(is_caught, BUGS))
    say(f"pure core: seeded bugs {caught}/{len(BUGS)}")
    return cuts, violations, caught


def main() -> int:
    """Search everything; 0 when nothing was violated and every seeded bug was caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="seeds of the network simulation (default: %(default)s)")
    options = parser.parse_args()
    say = _teller(time.monotonic())
    cuts, violations, caught = _cuts(say)
    disk = proof.full(say, PARTS)
    points, killed = killing.run(say, PARTS)
    played, stormy = network.run(options.seeds, say, PARTS)
    disk_caught, disk_bugs = bugs.full(say, PARTS)
    violations += [one for _, found in disk.values() for one in found] + killed + stormy
    for one in violations[:50]:
        say(f"VIOLATION {one}")
    images, known = disk["cuts"][0] + disk["second cuts"][0], len(BUGS) + disk_bugs
    print(
        f"cuts {cuts}, images {images}, kill points {points}, seeds {played}, violations {len(violations)}, "
        f"seeded bugs {caught + disk_caught}/{known}"
    )
    return 1 if violations or caught + disk_caught < known else 0
