"""The crash harness: the update machine in a small world of disk, memory and orders, cut at every boundary, alone and in pairs.

A world (worlds.py) says how each phase of each build turns out. A run feeds orders, cuts the power at chosen points, adds noise
(late, duplicate or replayed events) and looks at the invariants after every step. All it knows of the product is `step` and its
words.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from edgeops.wire.conditions import Fact, unmet
from edgeops_agent.core import slot as words
from edgeops_agent.core.slot import (
    Acked,
    Build,
    Cleared,
    Discard,
    Done,
    Event,
    Failed,
    Fetch,
    Install,
    Lost,
    Offered,
    Outcome,
    Report,
    Restarted,
    Run,
    Sense,
    Sensed,
    Slot,
    Stopped,
    Target,
    Tick,
    Try,
    Verify,
    WakeAt,
)

from .worlds import FATAL, FREE, NEW, OLD, World

LIMIT = 200


class PowerCut(Exception):
    """The power goes."""


class Violation(AssertionError):
    """An invariant does not hold."""


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
    delivered: dict[tuple[int, str], Any] = field(default_factory=dict)
    tries: dict[tuple[Build, str], int] = field(default_factory=dict)
    wake: int = 0
    steps: int = 0
    offered: int = 0
    facts: dict[str, Fact] = field(default_factory=dict)
    told: int = 0
    cleared: set[int] = field(default_factory=set)
    had: set[Build] = field(default_factory=set)
    deaths: int = 0
    stops: int = 0
    reports: int = 0

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
        terms = self.world.later if index and self.world.later is not None else self.world.conditions
        gates = terms if build is not None and build != OLD else FREE
        target = Target(2 + index, action, "r1", build, attempts=3, trial_s=60, fetch_s=100, work_s=100, conditions=gates)
        return Offered(target, self.now)


def _noted(slot: Slot, reports: int) -> Slot:
    """What saving adds: new outcomes are told by later reports only."""
    if all(outcome.after >= 0 for outcome in slot.outbox):
        return slot
    return replace(slot, outbox=tuple(replace(one, after=reports) if one.after < 0 else one for one in slot.outbox))


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
            place = _booting(sim) if isinstance(event, Lost) else len(sim.events)
            sim.events.insert(place, replace(event, now=sim.now) if hasattr(event, "now") else event)
    if sim.world.early and sim.steps >= sim.world.early and sim.offered == 1:
        sim.offered = 2
        sim.events.insert(_booting(sim), sim.order(1))
    if not sim.events and not _next_event(sim):
        return False
    event = sim.events.pop(0)
    before = sim.saved
    after, commands = sim.machine.step(before, event)
    after = _noted(after, sim.reports)
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


def _booting(sim: Sim) -> bool:
    """Whether nothing may come before the first of the events: the shell connects and looks around only after Restarted."""
    return bool(sim.events) and isinstance(sim.events[0], Restarted)


def _next_event(sim: Sim) -> bool:
    """Nothing queued: the next order comes (half-way through the present one or after it), else time passes up to the wake-up."""
    if sim.offered < len(sim.world.orders) and not (sim.world.early and sim.offered):
        sim.offered += 1
        sim.events.append(sim.order(sim.offered - 1))
        return True
    if sim.saved.phase in words.GATED and _the_world_moves(sim):
        return True
    if sim.saved.phase != "idle":
        if sim.saved.deadline <= 0:
            raise Violation(f"{sim.saved.phase} has no deadline")
        sim.now = max(sim.now + 1, sim.saved.deadline)
        sim.events.append(Tick(sim.now))
        return True
    return False


def _the_world_moves(sim: Sim) -> bool:
    """While the slot waits at a gate: the next fact becomes true, then the manager opens the barrier."""
    target = sim.saved.target
    if target is None or not (target.gate(sim.saved.phase) or target.conditions.barrier):
        return False
    may_clear = sim.saved.phase == "proven" and target.conditions.barrier and sim.world.clears and not sim.saved.cleared
    if sim.told < len(sim.world.facts) and not (may_clear and sim.world.first_clears):
        name, value = sim.world.facts[sim.told]
        sim.told += 1
        sim.facts[name] = value
        sim.now += 60
        sim.events.append(Sensed(dict(sim.facts), sim.now))
        return True
    if may_clear:
        sim.cleared.add(target.order)
        sim.events.append(Cleared(target.order))
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
            allowed = target.build in sim.had or not unmet(target.conditions.fetch, sim.facts)
            _require(allowed, "fetches against its conditions")
            _work(sim, "fetch", target)
        case Sense():
            _look_around(sim)
        case Verify(target):
            _require(target.build in sim.fetched, "verifies what was not fetched in this boot")
            _work(sim, "verify", target)
        case Install(target):
            _require(target.build in sim.verified, "installs bytes not verified in this boot")
            _work(sim, "install", target)
        case Try(target):
            _require(target.build in sim.verified, "tries bytes not verified in this boot")
            _require(not unmet(target.conditions.activate, sim.facts), "activates against its conditions")
            key = (target.build, target.rollout)
            sim.tries[key] = sim.tries.get(key, 0) + 1
            sim.running = sim.trying = target.build
            if sim.stops < sim.world.stops:
                sim.stops += 1
                sim.saved, _ = sim.machine.step(sim.saved, Stopped())
                raise PowerCut
            _work(sim, "trial", target)
        case Run(build):
            _require(sim.saved.phase != "proven", "takes the calls from what waits to commit")
            sim.running, sim.trying = build, None
            sim.events = [event for event in sim.events if getattr(event, "phase", "") != "trial"]  # nobody watches it any more
            if sim.saved.phase == "rollback" and sim.saved.target:
                sim.events.append(Done("rollback", sim.saved.target.order, sim.now))
        case Discard(kept):
            _discard(sim, set(kept))
        case Report():
            _report(sim)
        case WakeAt(at):
            sim.wake = at


def _look_around(sim: Sim) -> None:
    _die_or_fail(sim, sim.saved.phase, sim.saved.target)
    sim.events.append(Sensed(dict(sim.facts), sim.now))


def _discard(sim: Sim, kept: set[Build]) -> None:
    needed = {build for build in (sim.saved.current, sim.saved.previous) if build}
    if sim.saved.phase not in ("idle", "rollback") and sim.saved.target and sim.saved.target.build:
        needed.add(sim.saved.target.build)
    _require(needed <= kept, "discards what is still needed")
    sim.fetched &= kept
    sim.verified &= kept
    sim.had &= kept


def _report(sim: Sim) -> None:
    """The manager has the report at once, but its word comes after what has happened meanwhile."""
    if sim.world.offline or not sim.saved.outbox:
        return
    sim.reports += 1
    for outcome in sim.saved.outbox:
        known = sim.delivered.setdefault((outcome.order, outcome.rollout), outcome)
        _require(known == outcome, "two different outcomes of one order")
    sim.events.append(Acked(sim.reports))


def _die_or_fail(sim: Sim, phase: str, target: Target | None) -> bool:
    """Whether this is where NEW fails; the device may die of it."""
    if target is None or sim.world.fails != phase or target.build != NEW:
        return False
    if sim.world.how == "kill" and sim.deaths < sim.world.kills:
        sim.deaths += 1
        raise PowerCut
    if sim.world.how == "rot" and sim.deaths < sim.world.kills:
        sim.deaths += 1
        sim.fetched.discard(target.build)
        sim.events.append(Failed(phase, target.order, sim.now, "bad-object"))
        return True
    if sim.world.how in ("fail", "unfit"):
        sim.events.append(Failed(phase, target.order, sim.now, f"{phase}-broken", unfit=sim.world.how == "unfit"))
    return sim.world.how not in ("kill", "rot")


def _work(sim: Sim, phase: str, target: Target) -> None:
    """What the shell would do, and its answer."""
    if _die_or_fail(sim, phase, target):
        return
    if target.build:
        if phase == "fetch":
            sim.fetched.add(target.build)
            sim.had.add(target.build)
        elif phase == "verify":
            sim.verified.add(target.build)
        elif phase == "trial":
            sim.passed.add((target.build, target.order))
    sim.events.append(Done(phase, target.order, sim.now, unproven=phase == "trial" and sim.world.quiet))


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise Violation(text)


def _check_step(sim: Sim, before: Slot, event: Event, after: Slot) -> None:
    _require(after.order >= before.order, "the order counter went back")
    _require(after.phase in words.PHASES, "an unknown phase")
    if after.phase in words.WORKING:
        _require(after.deadline > 0, f"{after.phase} has no deadline")
    if isinstance(event, Sensed) and after.target and after.phase in ("waiting", "fetch"):
        _require(after.until == before.until >= after.deadline, "conditions put off the deadline")
        _require(after.phase == "waiting" or not unmet(after.target.conditions.fetch, event.facts), "goes on fetching")
    if isinstance(event, Offered | Restarted | Sensed) and after.target and after.phase == "waiting":
        _require(after.deadline <= event.now + after.target.conditions.wait_s, "waits longer than it may")
    claims = after.last is not None and after.last.verdict == "committed" and after.last.release != OLD.release
    _require(not (sim.world.quiet and claims), "a model that nobody called counts as proven")
    if after.current != before.current and after.current is not None:
        fell_back = isinstance(event, Lost) and after.current == before.previous
        proven = any(build == after.current for build, _ in sim.passed)
        passed = isinstance(event, Done) and event.phase == "trial"
        let_go = before.phase == "proven" and isinstance(event, Sensed | Cleared)
        _require(fell_back or (proven and (passed or let_go)), "committed what passed no trial")
        if not fell_back:
            _check_gates(sim, before)
    if sim.world.fails and after.current == NEW and not 0 < sim.world.kills <= sim.deaths:
        raise Violation("a bad release was committed")
    _require(after.attempts <= 4, "restarts without bound")


def _check_gates(sim: Sim, before: Slot) -> None:
    """A commit needs its conditions, and an open barrier."""
    assert before.target is not None
    gates = before.target.conditions
    _require(not unmet(gates.commit, sim.facts), "committed against its conditions")
    _require(not gates.barrier or any(order >= before.target.order for order in sim.cleared), "committed before the barrier opened")


def _at_rest(sim: Sim) -> None:
    slot, world = sim.saved, sim.world
    _require(slot.phase == "idle", "did not come to rest")
    lost = any(event == Lost(OLD.release, 0, "rot") for _, event in sim.noise)
    tidy = sim.cuts or lost or world.orders[-1][0] == "prefetch" or sim.had <= {slot.current, slot.previous}
    _require(tidy, "bytes that nobody needs are left")
    _require(sim.running == slot.current, f"runs {sim.running}, but the record says {slot.current}")
    last_action, last_build = world.orders[-1]
    _require(slot.order == 1 + len(world.orders), "an order was lost")
    _require(slot.last is not None and slot.last.order == slot.order, "the newest order has no outcome")
    ended = _newest(sim)
    verdict = ended.verdict
    committed = verdict in ("committed", "committed-unproven")
    matches = committed == (last_action == "run" and slot.current == last_build)
    _require(matches or (lost and last_build == OLD), f"outcome {verdict} does not match the device")
    if world.start.current is not None and last_action != "none":
        _require(slot.current is not None, "a working model was lost")
    survived = bool(world.fails) and world.how in ("kill", "rot") and world.kills < FATAL
    if last_build == NEW and world.ends:
        _require(verdict in ("failed", "rolled-back") and _why(ended, world), f"ended {verdict} {ended.reason}")
    elif not world.fails or survived:
        committed_as = "committed-unproven" if world.quiet else "committed"
        expected = {"run": committed_as, "none": "removed", "prefetch": "prefetched"}[last_action]
        _require(verdict == expected, f"a good order ended {verdict}")
    if world.fails and last_build == NEW and not survived:
        _require(not committed, "a bad release counts as committed")
        if world.how != "kill":
            _require(sim.tries.get((NEW, "r1"), 0) <= 1 + len(sim.cuts) + lost, "a bad release was tried again")
    if not world.offline:
        _require(sim.delivered.get((slot.order, "r1")) == ended and slot.last in sim.delivered.values(), "not delivered")
        _require(not slot.outbox, "the outbox was not emptied")
    else:
        _require(any(o.order == slot.order for o in slot.outbox), "an outcome nobody acknowledged is gone")


def _newest(sim: Sim) -> Outcome:
    """How the newest order ended; the model before it may have been lost since."""
    told = (*sim.saved.outbox, *sim.delivered.values(), sim.saved.last)
    return next(one for one in told if one is not None and (one.order, one.rollout) == (sim.saved.order, "r1"))


def _why(ended: Outcome, world: World) -> bool:
    """Whether the newest outcome has the reason the world asks for; more power cuts than it allows for are a crash loop."""
    return ended.reason in (world.ends, "crash-loop")
