"""A world for the rollout engine: a seeded fleet, every event it can send, and the laws checked after each step."""

import random
from dataclasses import dataclass, replace

from edgeops.rollout import state as s
from edgeops.rollout.gates import hard_stop
from edgeops.rollout.plan import Plan, parse_waves
from edgeops.rollout.policy import PPM, Policy


def plan(waves="1,10%,100%", previous="old", **settings) -> Plan:
    """A plan with short times; settings override the policy."""
    quick = {"dwell_s": 10, "wave_timeout_s": 100, "silence_s": 5, "silence_failure_s": 20, "rollout_deadline_s": 5_000}
    return Plan("r1", "new", "detector", 2, "main", previous, parse_waves(waves), Policy(**{**quick, **settings}))


class Broken(AssertionError):
    """A law of the engine does not hold."""


def law(holds, text) -> None:
    """Raise `Broken` unless the law holds."""
    if not holds:
        raise Broken(text)


@dataclass
class Truth:
    """An independent ledger of what was sent, kept per wave: what the counters must agree with."""

    started: list
    good: list
    unproven: list
    bad: list
    unfit: list
    excused: list
    since_met: list

    @classmethod
    def of(cls, n):
        """An empty ledger for n waves."""
        return cls(*[[0] * n for _ in range(6)], [None] * n)


class Watched:
    """Feeds events to a step function and checks the laws against its own ledger after each."""

    def __init__(self, step, order: Plan) -> None:
        self.step, self.r, self.truth = step, s.Rollout(order), Truth.of(len(order.waves))
        self.opened, self.commands = set(), []

    def feed(self, event):
        """Apply one event, check every law, return the commands."""
        before = self.r
        self.r, commands = self.step(before, event)
        self._record(before, event)
        self._check(before, event, commands)
        self.commands.extend(commands)
        return commands

    def _record(self, before, event) -> None:
        t = self.truth
        if isinstance(event, s.DeviceStarted) and 0 <= event.wave <= before.current:
            t.started[event.wave] += event.n
        if isinstance(event, s.Outcome) and 0 <= event.wave <= before.current:
            ledger = {"committed": t.good, "committed-unproven": t.unproven, "unfit": t.unfit}.get(event.verdict, t.bad)
            ledger[event.wave] += 1
        if isinstance(event, s.Relapsed) and 0 <= event.wave <= before.current:
            (t.good if event.was == "committed" else t.unproven)[event.wave] -= 1
            t.bad[event.wave] += 1
        if isinstance(event, s.Resumed) and before.status == "halted":
            t.excused = list(t.bad)
            t.since_met[before.current] = None
        if isinstance(event, s.Resumed) and before.status == "paused" and t.since_met[before.current] is not None:
            t.since_met[before.current] += max(0, event.now - before.paused_at)

    def _ratio_holds(self, i) -> bool:
        t, policy = self.truth, self.r.plan.policy
        judged = t.started[i] - t.unfit[i] - t.excused[i]
        kept = t.good[i] + (t.unproven[i] if policy.count_unproven else 0)
        return kept * PPM >= policy.success_ppm * judged

    def _check(self, before, event, commands) -> None:
        r = self.r
        self._check_counters(before, event)
        self._check_passes(before, event)
        for command in commands:
            if isinstance(command, s.OpenWave):
                law(r.status in ("running", "finished"), f"opened wave {command.index} while {r.status}")
                law(command.index == 0 or all(w.passed for w in r.waves[: command.index]), "opened before the wave before passed")
                law(command.up_to == r.waves[command.index].up_to <= r.targets, "opened for the wrong number")
                self.opened.add(command.index)
            if isinstance(command, s.Recall):
                law(command.last_wave == r.current and command.previous == r.plan.previous, "recalled the wrong waves")
            if isinstance(command, s.WakeAt):
                law(command.time > r.now, "wakes in the past")
        law(self.opened == set(range(r.current + 1)), "a wave is current that was never opened")
        law(r.status != "running" or r.wake is not None, "running without a deadline")
        law(r.status != "running" or r.now < r.deadline, "running past the rollout's deadline")
        law(r.status != "reverting" or (r.wake or 0) > r.now, "reverting without a deadline")
        law(r.status not in ("running", "paused") or not hard_stop(r), "went on after the hard stop")
        bad = sum(self.truth.bad) - sum(self.truth.excused)
        law(r.status not in ("running", "paused") or bad <= r.plan.policy.max_failures, "went on beyond max_failures")
        law(
            r.status != "halted" or before.status == "halted" or any(isinstance(c, s.Stop) for c in commands), "halted without Stop"
        )
        law(r.status not in ("paused", "halted", "finished", "aborted") or r.wake is None, "rests with a timer")

    def _check_counters(self, before, event) -> None:
        r, t = self.r, self.truth
        for i, w in enumerate(r.waves):
            law(w.started == t.started[i], f"wave {i} lost count of started devices")
            law(
                (w.committed, w.unproven, w.failures, w.unfit) == (t.good[i], t.unproven[i], t.bad[i], t.unfit[i]), "wrong counters"
            )
            law(w.excused == t.excused[i], "excused other failures than the operator saw")
            law(0 <= w.unknown <= w.in_flight, "more unknown devices than in flight")
        law(r.now >= before.now, "time ran back")
        law(sum(x.count for x in r.reasons) == sum(t.bad) + sum(t.unfit), "lost a reason")
        law(len(r.reasons) <= s.MAX_REASONS, "too many reasons")

    def _check_passes(self, before, event) -> None:
        r, t = self.r, self.truth
        for i in range(max(0, before.current), max(0, r.current) + 1):
            if i >= len(r.waves):
                continue
            was = before.waves[i].passed if before.waves else ""
            judged = t.started[i] - t.unfit[i] - t.excused[i]
            room = max(0, r.waves[i].size - t.excused[i] - r.waves[i].excused_unfit)
            met = judged >= min(r.plan.policy.min_devices, room) and self._ratio_holds(i)
            passed_now = bool(r.waves[i].passed and not was)
            if passed_now or (r.status == "running" and i == r.current):
                t.since_met[i] = (t.since_met[i] if t.since_met[i] is not None else r.now) if met else None
            if passed_now:
                self._check_pass(i)
            elif r.status == "running" and i == r.current:
                law(met or r.now < r.waves[i].deadline, "a wave that missed its fraction went on after its timeout")
                dwelt = met and r.now - t.since_met[i] >= r.plan.policy.dwell_s
                law(not dwelt or r.waiting > 0, "a wave that earned its pass was held")
            if r.status == "halted" and before.status == "running" and r.why.startswith("wave-missed"):
                law(not met, "a wave that holds its fraction was stopped")

    def _check_pass(self, i) -> None:
        r, t = self.r, self.truth
        wave = r.waves[i]
        if wave.passed == "earned":
            law(t.started[i] > 0, "a wave earned its pass without devices")
            law(self._ratio_holds(i), "a wave passed below its success fraction")
            law(t.since_met[i] is not None and r.now - t.since_met[i] >= r.plan.policy.dwell_s, "a wave passed before its dwell")
        if wave.passed == "empty":
            law(wave.size == 0 and t.started[i] == 0, "a wave with devices passed as empty")
        if wave.passed == "unjudged":
            law(i == len(r.waves) - 1 and t.bad[i] == t.excused[i], "passed unjudged in the middle or with failures")
            law(r.now >= wave.deadline or (wave.started >= wave.size and wave.in_flight == 0), "gave up on a wave too early")


VERDICTS = ["committed"] * 12 + ["committed-unproven", "rolled-back", "failed", "unfit", "silent"]


def wander(step, seed: int, moves: int = 120) -> Watched:
    """Random events of every kind, sensible and not, against a random plan; operator misuse is tried and must be refused."""
    rng = random.Random(seed)
    waves = rng.choice(["1,10%,100%", "10%,50%,100%", "3,100%", "100%", "1,2,3,100%"])
    settings = {
        "success_fraction": rng.choice([0.5, 0.8, 0.95]),
        "min_devices": rng.choice([1, 3]),
        "max_failures": rng.choice([0, 2, 100]),
        "max_failure_ppm": rng.choice([100_000, 500_000, PPM]),
        "hard_stop_min_started": rng.choice([1, 10]),
        "count_unproven": rng.random() < 0.7,
        "dwell_s": rng.choice([0, 10]),
        "rollout_deadline_s": rng.choice([400, 5_000]),
    }
    world, now = Watched(step, plan(waves, **settings)), 0
    world.feed(s.Started(now, rng.choice([1, 7, 20, 60])))
    for _ in range(moves):
        now += rng.choice([0, 0, 1, 1, 3, 11, 40])
        _move(world, rng, now)
    return world


def _move(world, rng, now) -> None:
    r = world.r
    flying = [i for i, w in enumerate(r.waves) if w.in_flight > 0]
    idle = [i for i, w in enumerate(r.waves[: r.current + 1]) if w.started < w.size]
    dice = rng.random()
    if dice < 0.35 and idle:
        wave = rng.choice(idle)
        world.feed(s.DeviceStarted(now, wave, rng.randint(1, max(1, r.waves[wave].size - r.waves[wave].started))))
    elif dice < 0.8 and flying:
        world.feed(s.Outcome(now, rng.choice(flying), rng.choice(VERDICTS), rng.choice(["", "nan", f"code {rng.randint(0, 30)}"])))
    elif dice < 0.805 and (kept := [i for i, w in enumerate(r.waves) if w.committed]):
        world.feed(s.Relapsed(now, rng.choice(kept), "committed", "crashed"))
    elif dice < 0.835 and r.current >= 0:
        world.feed(s.Silence(now, rng.randint(0, r.current), rng.randint(0, 5)))
    elif dice < 0.93:
        world.feed(s.Tick(now, rng.choice([0, 0, 2])))
    else:
        _operate(world, rng, now)


def _operate(world, rng, now) -> None:
    from edgeops.rollout.transitions import TRANSITIONS, word_of
    from edgeops.wire.errors import Misuse

    choices = [s.Paused(now), s.Resumed(now), s.Resumed(now), s.Resumed(now), s.Advanced(now), s.Started(now, 5)]
    choices += [s.Tripped(now, "sequential", "latency"), s.DeviceStarted(now, 99), s.Aborted(now, "keep"), s.Aborted(now, "revert")]
    event = rng.choice(choices[:8] if rng.random() < 0.9 else choices)
    legal = isinstance(event, s.Tripped | s.DeviceStarted) or (world.r.status, word_of(event)) in TRANSITIONS
    before = world.r
    try:
        world.feed(event)
    except Misuse as error:
        law(not legal and error.reason == "illegal-transition", "a legal operator event was refused")
        law(world.r == before, "a refused event changed the state")
    else:
        law(legal, "an illegal operator event was accepted")


def travel(step, order: Plan, seed: int, targets: int, p_fail: float, p_offline: float = 0.3) -> Watched:
    """A whole rollout over a simulated fleet with its own queue, until the rollout rests or nothing can happen any more."""
    rng = random.Random(seed)
    offline = {i for i in range(targets) if rng.random() < p_offline}
    world, now, begun, queue = Watched(step, order), 0, 0, []
    world.feed(s.Started(0, targets))
    while world.r.status == "running" and now < 100_000:
        reach = world.r.wave.up_to
        for device in range(begun, reach):
            if device not in offline:
                queue.append((now + rng.randint(1, 5), device, "start"))
        begun = reach
        queue.sort()
        due = queue[0][0] if queue else None
        if due is None or due > world.r.wake:
            now = world.r.wake
            world.feed(s.Tick(now))
            continue
        now, device, what = queue.pop(0)
        wave = next(i for i, w in enumerate(world.r.waves) if device < w.up_to)
        if what == "start":
            world.feed(s.DeviceStarted(now, wave))
            queue.append((now + rng.randint(1, 8), device, "end"))
        else:
            bad = rng.random() < p_fail
            world.feed(s.Outcome(now, wave, "rolled-back" if bad else "committed", "golden vectors differ" if bad else ""))
    return world


def at(rollout, now):
    """The same rollout at another time, for comparisons."""
    return replace(rollout, now=now)
