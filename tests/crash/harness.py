"""The crash harness: the update machine in a small world of disk, memory and orders, cut at every boundary, alone and in pairs.

A world says how each phase of each build turns out. A run feeds orders, cuts the power at chosen points, adds noise (late,
duplicate or replayed events) and looks at the invariants after every step. Of the product it knows only `step` and its words.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from edgeops_agent.core import slot as words
from edgeops_agent.core.slot import (
    Acked,
    Build,
    Discard,
    Done,
    Event,
    Failed,
    Fetch,
    Install,
    Lost,
    Offered,
    Report,
    Restarted,
    Run,
    Slot,
    Target,
    Tick,
    Try,
    Verify,
    WakeAt,
)

OLD = Build("a" * 64, "fp32", "m", 1)
OLDER = Build("0" * 64, "fp32", "m", 0)
NEW = Build("b" * 64, "fp32", "m", 2)
NEXT = Build("c" * 64, "fp32", "m", 3)
LIMIT = 200


class PowerCut(Exception):
    """The power goes."""


class Violation(AssertionError):
    """An invariant does not hold."""


@dataclass(frozen=True, slots=True)
class World:
    """How things turn out: the phase that fails for NEW (or none), how, and which orders come."""

    name: str
    fails: str = ""
    how: str = "fail"  # fail | kill (the device dies while doing it) | unfit | hang (no answer ever)
    orders: tuple[tuple[str, Build | None], ...] = (("run", NEW),)
    start: Slot = field(default_factory=lambda: Slot(current=OLD, previous=OLDER, order=1))
    offline: bool = False
    early: int = 0


def worlds() -> tuple[World, ...]:
    """Every world the harness visits."""
    found = [World("fine"), World("fresh device", start=Slot()), World("same again", orders=(("run", NEW), ("run", NEW)))]
    for phase, how in itertools.product(("fetch", "verify", "install", "trial"), ("fail", "kill", "hang")):
        found.append(World(f"{phase} {how}", phase, how))
    found.append(World("unfit", "fetch", "unfit"))
    found.append(World("removed", orders=(("none", None),)))
    found.append(World("prefetched", orders=(("prefetch", NEW),)))
    found.append(World("superseded", orders=(("run", NEW), ("run", NEXT))))
    found.append(World("superseded by what runs", orders=(("run", NEW), ("run", OLD))))
    found.append(World("bad, then the next", "trial", "fail", orders=(("run", NEW), ("run", NEXT))))
    found.append(World("bad, asked again", "trial", "fail", orders=(("run", NEW), ("run", NEW))))
    found.append(World("prefetched, then run", orders=(("prefetch", NEW), ("run", NEW))))
    found.append(World("removed while working", orders=(("run", NEW), ("none", None))))
    found.append(World("manager silent", offline=True))
    for early, (name, build) in itertools.product(range(2, 7), (("same", NEW), ("next", NEXT), ("old", OLD))):
        found.append(World(f"{name} at step {early}", orders=(("run", NEW), ("run", build)), early=early))
    return tuple(found)


@dataclass(slots=True)
class Sim:
    """One run. `saved` is the disk; everything else but `seen`, `acked` and `delivered` dies with the power."""

    world: World
    machine: ModuleType
    cuts: frozenset[int]
    noise: tuple[tuple[int, Event], ...] = ()
    act_first: bool = False
    saved: Slot = field(default_factory=Slot)
    point: int = 0
    now: int = 0
    running: Build | None = None
    trying: Build | None = None
    events: list[Event] = field(default_factory=list)
    verified: set[Build] = field(default_factory=set)
    fetched: set[Build] = field(default_factory=set)
    passed: set[tuple[Build, int]] = field(default_factory=set)
    delivered: dict[int, Any] = field(default_factory=dict)
    tries: dict[tuple[Build, str], int] = field(default_factory=dict)
    wake: int = 0
    steps: int = 0
    offered: int = 0

    def cut(self) -> None:
        """A place where the power may go."""
        self.point += 1
        if self.point in self.cuts:
            raise PowerCut

    def boot(self) -> None:
        """Memory is empty; the retained order comes again."""
        self.running = self.trying = None
        self.events = [Restarted(self.now)]
        self.verified, self.fetched, self.wake = set(), set(), 0
        self.events += [self.order(index) for index in range(self.offered)][-1:]

    def order(self, index: int) -> Offered:
        """The index-th order of the world."""
        action, build = self.world.orders[index]
        target = Target(2 + index, action, "r1", build, attempts=3, trial_s=60, fetch_s=100, work_s=100)
        return Offered(target, self.now)


def run(sim: Sim) -> Sim:
    """Play a whole run until nothing is left to happen; raises Violation."""
    sim.saved = sim.world.start
    sim.boot()
    while True:
        try:
            if not _advance(sim):
                break
        except PowerCut:
            sim.now += 1
            sim.boot()
        sim.steps += 1
        if sim.steps > LIMIT:
            raise Violation("does not settle")
    _at_rest(sim)
    return sim


def _advance(sim: Sim) -> bool:
    """Handle one event, or make the next one happen; False when the run is over."""
    for at, event in sim.noise:
        if at == sim.steps:
            sim.events.append(replace(event, now=sim.now) if hasattr(event, "now") else event)
    if sim.world.early and sim.steps >= sim.world.early and sim.offered == 1:
        sim.offered = 2
        booting = bool(sim.events) and isinstance(sim.events[0], Restarted)  # the shell connects only after Restarted
        sim.events.insert(int(booting), sim.order(1))
    if not sim.events and not _next_event(sim):
        return False
    event = sim.events.pop(0)
    before = sim.saved
    after, commands = sim.machine.step(before, event)
    sim.cut()
    if sim.act_first:
        _perform_all(sim, commands)
        sim.saved = after
    else:
        sim.saved = after
        _check_step(sim, before, event, after)
        sim.cut()
        _perform_all(sim, commands)
    return True


def _next_event(sim: Sim) -> bool:
    """Nothing queued: the next order comes (half-way through the present one or after it), else time passes up to the wake-up."""
    if sim.offered < len(sim.world.orders) and not (sim.world.early and sim.offered):
        sim.offered += 1
        sim.events.append(sim.order(sim.offered - 1))
        return True
    if sim.saved.phase != "idle":
        if sim.saved.deadline <= 0:
            raise Violation(f"{sim.saved.phase} has no deadline")
        sim.now = max(sim.now + 1, sim.saved.deadline)
        sim.events.append(Tick(sim.now))
        return True
    return False


def _perform_all(sim: Sim, commands: Iterable[Any]) -> None:
    for command in commands:
        sim.cut()
        _perform(sim, command)
        sim.cut()


def _perform(sim: Sim, command: Any) -> None:
    match command:
        case Fetch(target):
            _work(sim, "fetch", target)
        case Verify(target):
            _require(target.build in sim.fetched, "verifies what was not fetched in this boot")
            _work(sim, "verify", target)
        case Install(target):
            _require(target.build in sim.verified, "installs bytes not verified in this boot")
            _work(sim, "install", target)
        case Try(target):
            _require(target.build in sim.verified, "tries bytes not verified in this boot")
            key = (target.build, target.rollout)
            sim.tries[key] = sim.tries.get(key, 0) + 1
            sim.running = sim.trying = target.build
            _work(sim, "trial", target)
        case Run(build):
            sim.running, sim.trying = build, None
            if sim.saved.phase == "rollback" and sim.saved.target:
                sim.events.append(Done("rollback", sim.saved.target.order, sim.now))
        case Discard(kept):
            needed = {b for b in (sim.saved.current, sim.saved.previous) if b}
            if sim.saved.phase not in ("idle", "rollback") and sim.saved.target and sim.saved.target.build:
                needed.add(sim.saved.target.build)
            _require(needed <= set(kept), "discards what is still needed")
            sim.fetched &= set(kept)
            sim.verified &= set(kept)
        case Report():
            for outcome in sim.saved.outbox if not sim.world.offline else ():
                known = sim.delivered.setdefault(outcome.order, outcome)
                _require(known == outcome, "two different outcomes of one order")
                sim.events.append(Acked(outcome.order))
        case WakeAt(at):
            sim.wake = at


def _work(sim: Sim, phase: str, target: Target) -> None:
    """What the shell would do, and its answer."""
    bad = sim.world.fails == phase and target.build == NEW
    if bad and sim.world.how == "kill":
        raise PowerCut
    if bad and sim.world.how == "hang":
        return
    if bad:
        sim.events.append(Failed(phase, target.order, sim.now, f"{phase}-broken", unfit=sim.world.how == "unfit"))
        return
    if target.build:
        if phase == "fetch":
            sim.fetched.add(target.build)
        elif phase == "verify":
            sim.verified.add(target.build)
        elif phase == "trial":
            sim.passed.add((target.build, target.order))
    sim.events.append(Done(phase, target.order, sim.now))


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise Violation(text)


def _check_step(sim: Sim, before: Slot, event: Event, after: Slot) -> None:
    _require(after.order >= before.order, "the order counter went back")
    _require(after.phase in words.PHASES, "an unknown phase")
    if after.phase in words.WORKING:
        _require(after.deadline > 0, f"{after.phase} has no deadline")
    if after.current != before.current and after.current is not None:
        fell_back = isinstance(event, Lost) and after.current == before.previous
        proven = any(build == after.current for build, _ in sim.passed)
        _require(fell_back or (proven and isinstance(event, Done) and event.phase == "trial"), "committed what passed no trial")
    if sim.world.fails and after.current == NEW:
        raise Violation("a bad release was committed")
    _require(after.attempts <= 4, "restarts without bound")


def _at_rest(sim: Sim) -> None:
    slot, world = sim.saved, sim.world
    _require(slot.phase == "idle", "did not come to rest")
    _require(sim.running == slot.current, f"runs {sim.running}, but the record says {slot.current}")
    last_action, last_build = world.orders[-1]
    _require(slot.order == 1 + len(world.orders), "an order was lost")
    _require(slot.last is not None and slot.last.order == slot.order, "the newest order has no outcome")
    assert slot.last is not None
    verdict = slot.last.verdict
    committed = verdict in ("committed", "committed-unproven")
    _require(committed == (last_action == "run" and slot.current == last_build), f"outcome {verdict} does not match the device")
    if world.start.current is not None and last_action != "none":
        _require(slot.current is not None, "a working model was lost")
    if not world.fails:
        expected = {"run": "committed", "none": "removed", "prefetch": "prefetched"}[last_action]
        _require(verdict == expected, f"a good order ended {verdict}")
    if world.fails and last_build == NEW:
        _require(not committed, "a bad release counts as committed")
        if world.how != "kill":
            _require(sim.tries.get((NEW, "r1"), 0) <= 1 + len(sim.cuts), "a bad release was tried again")
    if not world.offline:
        _require(sim.delivered.get(slot.order) == slot.last, "the outcome was not delivered")
        _require(not slot.outbox, "the outbox was not emptied")
    else:
        _require(any(o.order == slot.order for o in slot.outbox), "an outcome nobody acknowledged is gone")


def count_points(world: World, machine: ModuleType) -> int:
    """How many places of a run without cuts the power may go at."""
    return run(Sim(world, machine, frozenset())).point


def noises() -> tuple[tuple[Event, ...], ...]:
    """Late, duplicate and replayed events."""
    stale = [Done(phase, order, 0) for phase in ("fetch", "verify", "install", "trial", "rollback") for order in (1, 2)]
    failed = [Failed(phase, 1, 0, "late") for phase in ("fetch", "trial")]
    replayed = [Offered(Target(order, "run", "r0", OLDER), 0) for order in (0, 1)]
    return tuple((event,) for event in (*stale[::2], *failed, *replayed, Acked(1), Tick(0), Lost(NEXT.release, 0, "late")))


def cases(machine: ModuleType, pairs: bool = True) -> Iterator[Sim]:
    """Every run: no cut, each single cut, each pair, and each single cut with each noise at three places."""
    for world in worlds():
        points = count_points(world, machine) + 12
        yield Sim(world, machine, frozenset())
        for first in range(1, points):
            yield Sim(world, machine, frozenset({first}))
            if pairs:
                for second in range(first + 1, points + 8):
                    yield Sim(world, machine, frozenset({first, second}))
        for (event,), at in itertools.product(noises(), range(9)):
            for first in (0, *range(1, points, 5)):
                yield Sim(world, machine, frozenset({first}), ((at, event),))


def explore(machine: ModuleType, make: Callable[[Sim], Sim] = lambda sim: sim, pairs: bool = True) -> tuple[int, list[str]]:
    """(number of runs, violations)."""
    runs, violations = 0, []
    for sim in cases(machine, pairs):
        runs += 1
        try:
            run(make(sim))
        except Violation as error:
            violations.append(f"{sim.world.name} cut at {sorted(sim.cuts)} noise {sim.noise}: {error}")
    return runs, violations
