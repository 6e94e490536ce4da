"""Every run of the crash harness: each world without a cut, with each single cut, with pairs of them, and with noise."""

import itertools
from collections.abc import Iterator
from types import ModuleType

from edgeops_agent.core.slot import Acked, Cleared, Done, Event, Failed, Lost, Offered, Target, Tick

from .harness import Sim, Violation, run
from .worlds import OLD, OLDER, worlds


def noises() -> tuple[Event, ...]:
    """Late, duplicate and replayed events."""
    stale = [Done(phase, order, 0) for phase in ("fetch", "verify", "install", "trial", "rollback") for order in (1, 2)]
    failed = [Failed(phase, 1, 0, "late") for phase in ("fetch", "trial")]
    replayed = [Offered(Target(order, "run", "r0", OLDER), 0) for order in (0, 1)]
    return (*stale[::2], *failed, *replayed, Acked(0), Tick(0), Lost("d" * 64, 0, "late"), Lost(OLD.release, 0, "rot"), Cleared(1))


def cases(machine: ModuleType, every: int = 1, pairs: bool = True, part: int = 0, parts: int = 1) -> Iterator[Sim]:
    """Every run: no cut, each single cut, each `every`-th pair, and each fifth single cut with each noise at thirteen places.

    Of so many `parts` only one, which has its share of the worlds.
    """
    yield from (Sim(world, machine, frozenset()) for world in worlds()[part::parts])
    for world in worlds()[part::parts]:
        points = run(Sim(world, machine, frozenset())).point + 12
        for first in range(1, points):
            yield Sim(world, machine, frozenset({first}))
            for second in range(first + 1 + first % every, points + 8, every) if pairs else ():
                yield Sim(world, machine, frozenset({first, second}))
        for event, at in itertools.product(noises(), range(13)):
            yield Sim(world, machine, frozenset(), ((at, event),))
            for first in range(at % every * 5, points, 5 * every):
                yield Sim(world, machine, frozenset({first}), ((at, event),))


def explore(machine: ModuleType, every: int = 1, part: int = 0, parts: int = 1) -> tuple[int, list[str]]:
    """(number of distinct runs, violations). Cuts that lie behind the end of a run make no other run of it."""
    runs: set[tuple[object, ...]] = set()
    violations = []
    for sim in cases(machine, every, part=part, parts=parts):
        try:
            run(sim)
        except Violation as error:
            violations.append(f"{sim.world.name} cut at {sorted(sim.cuts)} noise {sim.noise}: {error}")
        runs.add((sim.world.name, *sorted(at for at in sim.cuts if at <= sim.point), *(at for at, _ in sim.noise), *sim.noise))
    return len(runs), violations
