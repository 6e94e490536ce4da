"""A world for barriers: seeded devices that come, wait, leave, fail and give up; an own ledger; laws checked after each step."""

import importlib.util
import random
from itertools import pairwise
from pathlib import Path

from edgeops.rollout import state as s
from edgeops.rollout.conditions import conditions_from
from edgeops.rollout.plan import Plan, parse_waves
from edgeops.rollout.policy import Policy
from edgeops.wire.errors import Misuse

_spec = importlib.util.spec_from_file_location("rollout_invariants", Path(__file__).with_name("invariants.py"))
inv = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(inv)
law = inv.law

BAD = ("rolled-back", "failed", "silent")


def plan(waves="2,100%", **settings) -> Plan:
    """A plan whose waves are barriers, with short times."""
    quick = {"dwell_s": 0, "wave_timeout_s": 200, "silence_s": 5, "silence_failure_s": 20, "rollout_deadline_s": 3_000}
    wanted = conditions_from({"barrier": True, "commit_wait_s": 100})
    return Plan("r1", "new", "detector", 2, "main", "old", parse_waves(waves), Policy(**{**quick, **settings}), wanted)


class World:
    """Devices by number with what each does, kept apart from the counters of the engine, and what the engine has ordered."""

    def __init__(self, step, order: Plan, targets: int) -> None:
        self.step, self.r, self.now = step, s.Rollout(order), 0
        self.at = {}  # device -> planned | offered | started | proven | committed | bad | unfit | back
        self.wave, self.by = {}, {}
        self.decided, self.recalled, self.opened = set(), set(), set()
        reaches = (0, *order.reaches(targets))
        for index, (low, high) in enumerate(pairwise(reaches)):
            for device in range(low, high):
                self.at[device], self.wave[device] = "planned", index
        self.feed(s.Started(0, targets))

    def of(self, wave, *states):
        """The devices of a wave in one of these states."""
        return [device for device, state in self.at.items() if self.wave[device] == wave and (not states or state in states)]

    def feed(self, event) -> None:
        """Apply one event, look at every command, check what must hold after it."""
        self.now = max(self.now, event.now)
        before = self.r
        self.r, commands = self.step(before, event)
        for command in commands:
            self._obey(command)
        self._check(before)

    def say_proven(self, wave) -> None:
        """What the store would say of a wave now."""
        waiting = self.of(wave, "proven")
        self.feed(s.Proven(self.now, wave, len(waiting), min((self.by[device] for device in waiting), default=None)))

    def _obey(self, command) -> None:
        if isinstance(command, s.OpenWave):
            law(all(w in self.decided for w in range(command.index) if self.of(w)), "opened after an undecided wave")
            law(not any(self.of(w, "started", "proven", "offered", "bad") for w in range(command.index)) or self.forced,
                "opened before all of the wave before had committed")
            law(command.index not in self.recalled, "opened what was taken back")
            self.opened.add(command.index)
            for device in self.of(command.index, "planned"):
                self.at[device] = "offered"
        if isinstance(command, s.CommitWave):
            self._obey_commit(command.index)
        if isinstance(command, s.Recall):
            law(command.last_wave == self.r.current or command.first_wave == command.last_wave, "recalled the wrong waves")
            for wave in range(command.first_wave, command.last_wave + 1):
                self.recalled.add(wave)
                for device in self.of(wave, "offered", "started", "proven", "committed"):
                    self.at[device] = "back"

    def _obey_commit(self, wave) -> None:
        law(self.r.status in ("running", "finished"), f"decided while {self.r.status}")
        law(wave not in self.decided, "decided twice")
        law(wave not in self.recalled, "decided what was taken back")
        law(not self.of(wave, "planned", "offered", "started", "bad", "unfit", "back"), "let a wave commit that is not whole")
        law(all(self.now < self.by[device] for device in self.of(wave, "proven")), "decided when the first gives up")
        law(self.r.waves[wave].decision == "commit", "the decision is not stored")
        self.decided.add(wave)

    def _check(self, before) -> None:
        r = self.r
        for index, wave in enumerate(r.waves):
            lost = self.of(index, "bad") + ([] if index in self.decided else self.of(index, "unfit"))
            law(not lost or index in self.recalled, "a device is lost and the others are not taken back")
            law((wave.decision == "back") == (index in self.recalled) or r.status in ("reverting", "aborted"), "forgot a recall")
            law(wave.decision != "commit" or index in self.decided, "a decision nobody was told")
            law(index not in self.decided or wave.decision in ("commit", "back"), "forgot a decision")
        if r.status in ("halted", "aborted", "reverting", "finished") and r.current >= 0 and self.of(r.current):
            law({r.current} <= self.decided | self.recalled, f"{r.status} with an undecided barrier")
        if r.status in ("running", "paused") and r.wave.size and r.current not in self.decided:
            giving_up = [self.by[device] for device in self.of(r.current, "proven")]
            law(r.wave.proven == 0 or not giving_up or self.now < min(giving_up) or self.stale, "waits for what will not come")
            law(r.status == "paused" or self.now < r.wave.deadline, "an undecided wave outlived its timeout")
            whole = len(self.of(r.current, "proven", "committed")) == len(self.of(r.current))
            law(r.status == "paused" or not whole or self.stale, "all are ready and nobody is told")

    forced = False
    stale = False


MOVES = ["start"] * 2 + ["prove"] * 4 + ["commit"] * 3 + ["lose", "restart", "tick", "operate", "same"]


def wander(step, seed: int, moves: int = 90) -> World:
    """Random devices and operators against a random barrier plan."""
    rng = random.Random(seed)
    waves, targets = rng.choice([("100%", 3), ("2,100%", 5), ("1,3,100%", 6), ("50%,100%", 1)])
    settings = {"dwell_s": rng.choice([0, 10]), "success_fraction": rng.choice([0.5, 0.9])}
    world = World(step, plan(waves, max_failure_ppm=1_000_000, **settings), targets)
    careful = rng.random() < 0.6  # devices that do not fail, so that barriers become whole
    for _ in range(moves):
        world.now += rng.choice([0, 0, 1, 1, 3, 30 if not careful else 5])
        _move(world, rng, rng.choice(MOVES), careful)
    return world


def _move(world, rng, move, careful) -> None:
    r = world.r
    if r.current < 0:
        return
    wave = rng.randint(0, r.current) if not careful else r.current
    found = {
        "start": world.of(wave, "offered"), "same": world.of(wave, "offered"),
        "prove": world.of(wave, "started"), "restart": world.of(wave, "proven"),
        "lose": world.of(wave, "started", "proven"), "commit": world.of(wave, "proven") if wave in world.decided else [],
    }.get(move, [None])
    if not found or (careful and move in ("lose", "restart", "same") and rng.random() < 0.9):
        return
    device = rng.choice(found)
    if move == "tick":
        world.feed(s.Tick(world.now))
    elif move == "operate":
        _operate(world, rng)
    elif move == "same":
        world.at[device] = "started"
        world.feed(s.DeviceStarted(world.now, wave))
        _settle(world, wave, device, "committed")  # it ran the release already
    elif move == "start":
        world.at[device] = "started"
        world.feed(s.DeviceStarted(world.now, wave))
    elif move in ("prove", "restart"):
        world.at[device] = "proven" if move == "prove" else "started"
        world.by[device] = world.now + rng.choice([5, 75])
        world.say_proven(wave)
    else:
        _settle(world, wave, device, "committed" if move == "commit" else rng.choice([*BAD, "unfit"]))


def _settle(world, wave, device, verdict) -> None:
    world.at[device] = {"committed": "committed", "unfit": "unfit"}.get(verdict, "bad")
    world.stale = True  # until the number at the barrier is told anew
    world.feed(s.Outcome(world.now, wave, verdict, "x"))
    world.stale = False
    world.say_proven(wave)


def _operate(world, rng) -> None:
    dice = rng.random()
    events = [s.Paused(world.now), s.Resumed(world.now), s.Resumed(world.now), s.Advanced(world.now)]
    if dice < 0.1:
        events = [s.Aborted(world.now, "keep"), s.Aborted(world.now, "revert"), s.Tripped(world.now, "sequential", "latency")]
    event, before = rng.choice(events), world.r
    world.forced |= isinstance(event, s.Advanced)
    try:
        world.feed(event)
    except Misuse as error:
        law(world.r == before, "a refused event changed the state")
        if error.reason == "barrier-undecided":
            law(before.current not in world.decided, "a decided wave cannot be left")
        if error.reason == "barrier-broken":
            law(bool(world.recalled), "a whole rollout cannot be resumed")
