"""One update after another, each hurt once from outside: broker killed, line cut, reset or dead, agent stopped or killed.

Whatever happens, the update comes to its end, the manager knows its outcome exactly once, nothing is installed twice, and no
counter goes back. All of a run comes from its seed: `python -m tests.live --runs 1 --swaps 0 --seed S` makes run S again.
"""

import json
import random
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..agent.real.site import until
from .line import BOTH, DOWN, UP, Line
from .models import Tiny
from .scene import Scene

PATIENCE_S = 90.0
VERDICT = "committed-unproven"
FAULTS = ("broker killed", "cut", "reset", "dead", "deaf", "mute", "agent stopped", "agent killed")
MOMENTS: Mapping[str, float] = {
    "pushed": 0.1, "order": 0.02, "fetch": 0.6, "verify": 0.02, "install": 0.02, "trial": 1.5, "committed": 0.06,
}  # fmt: skip
"""Lines of the agent's log (`pushed`: the manager has taken the rollout), and how many seconds later a fault may come at most."""
LONG_S = (0.3, 1.5, 5.0)
"""Some are over before anybody notices, some only after both ends have given the connection up."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What happens in one run."""

    seed: int
    fault: str
    moment: str
    delay_s: float
    long_s: float

    @staticmethod
    def of(seed: int) -> "Plan":
        """The same for the same seed, always. Eight faults and seven moments: 56 seeds in a row try each at each."""
        rng = random.Random(seed)
        fault, moment = FAULTS[seed % len(FAULTS)], list(MOMENTS)[seed % len(MOMENTS)]
        return Plan(seed, fault, moment, rng.uniform(0, MOMENTS[moment]), rng.choice(LONG_S) * rng.uniform(0.5, 1))

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.fault} {self.delay_s:.3f} s after {self.moment} for {self.long_s:.1f} s"


@dataclass
class Watch:
    """Looks on while one order is carried out, and keeps what must not be."""

    scene: Scene
    rollout: str
    release: Tiny
    before: tuple[int, ...]
    violations: list[str] = field(default_factory=list)
    over: bool = False

    def look(self) -> None:
        """One look at the agent's record, and at what the manager knows."""
        record = self.scene.agent.record()
        now, slot = counters(record), record.slots.get("main")
        if any(new < old for new, old in zip(now, self.before, strict=True)):
            self.violations.append(f"a counter went back: {self.before} -> {now}")
        self.before, last = now, slot.last if slot and slot.phase == "idle" else None
        if slot and last and last.rollout == self.rollout and not slot.outbox:
            # An outcome leaves the outbox when the manager has stored it, not a moment earlier.
            if not self.over and (known := self.scene.known(self.rollout)) != ("settled", VERDICT):
                self.violations.append(f"lost: the outbox is empty, but the manager knows {known}")
            self.over = True

    def on_for(self, seconds: float) -> None:
        """Go on looking so long, or until the update has ended."""
        until_s = time.monotonic() + seconds
        while (left := until_s - time.monotonic()) > 0 and not self.over:
            self.look()
            time.sleep(min(left, 0.01))


def counters(record: Any) -> tuple[int, ...]:
    """What must never go back."""
    trust, slot = record.trust, record.slots.get("main")
    return (trust.counter, trust.command, trust.site_version, trust.floor_version, record.report_seq, slot.order if slot else 0)


def one(scene: Scene, plan: Plan) -> list[str]:
    """One update of a release nobody has seen before, hurt as planned; what was not as it must be."""
    before, release = counters(scene.agent.record()), scene.publish()
    rollout = scene.site.order(scene.agent.name, release.name)
    watch = Watch(scene, rollout, release, before)
    try:
        _await(scene, plan.moment, rollout)
        time.sleep(plan.delay_s)
        _strike(scene, plan, watch)
        until(lambda: watch.look() or watch.over, "the update to end and its outcome to be acknowledged", PATIENCE_S)
        until(lambda: scene.answers(release), f"{release.name} to answer", PATIENCE_S)
        until(lambda: _reported(scene) == release.version, f"the manager to know that {release.name} runs", PATIENCE_S)
    except AssertionError as error:
        watch.violations.append(str(error))
    return [*watch.violations, *_counted(scene, plan, rollout, release)]


def _reported(scene: Scene) -> int:
    """The version that runs, as the manager believes."""
    return int(scene.site.device(scene.agent.name)["reported"].get("main", {}).get("version", 0))


def _await(scene: Scene, moment: str, rollout: str) -> None:
    """The moment, to some milliseconds: an outcome is acknowledged some ten after it was told."""
    deadline = time.monotonic() + PATIENCE_S
    while not _has_come(scene, moment, rollout):
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:g} s in vain for: the moment {moment}"
        time.sleep(0.002)


def _has_come(scene: Scene, moment: str, rollout: str) -> bool:
    match moment:
        case "pushed":
            return True
        case "order":
            return bool(scene.told("order", rollout=rollout))
        case "committed":
            return bool(scene.told("update", rollout=rollout, verdict=VERDICT))
    return bool(scene.told("update", rollout=rollout, phase=moment))


def _strike(scene: Scene, plan: Plan, watch: Watch) -> None:
    """Do it, look on while it lasts, and end it."""
    agent = scene.agent.process
    assert agent is not None
    match plan.fault:
        case "broker killed":
            scene.kill_broker()
            watch.on_for(plan.long_s)
            scene.site.up()
        case "agent stopped":
            agent.send_signal(signal.SIGSTOP)
            watch.on_for(plan.long_s)
            agent.send_signal(signal.SIGCONT)
        case "agent killed":
            scene.agent.end(signal.SIGKILL)
            watch.on_for(min(plan.long_s, 0.5))
            scene.start_agent()
        case _:
            for line in scene.lines:
                _hurt(line, plan.fault)
            watch.on_for(plan.long_s if plan.fault != "reset" else 0)
            for line in scene.lines:
                if plan.fault in ("deaf", "mute"):
                    line.reset()  # what was held up never arrives
                line.mend()


def _hurt(line: Line, fault: str) -> None:
    match fault:
        case "reset":
            line.reset()
        case "cut":
            line.cut()
        case _:
            line.go_dead({"dead": BOTH, "deaf": frozenset({DOWN}), "mute": frozenset({UP})}[fault])


def _counted(scene: Scene, plan: Plan, rollout: str, release: Tiny) -> list[str]:
    """What the log of the agent and the manager say once all is over: each thing once, an interrupted one once more."""
    again = plan.fault == "agent killed"
    shown = scene.site.api.get(f"/rollouts/{rollout}")
    updates = scene.told("update", rollout=rollout)
    outcomes = [line["verdict"] for line in updates if "verdict" in line]
    found = {
        "outcome at the manager": (sum(shown["counts"].values()) - shown["counts"]["started"], 1, 1),
        "outcome told by the agent": (len(outcomes), 0 if again else 1, 1),
        "install": (sum(line.get("phase") == "install" for line in updates), 1, 1 + again),
        "worker that took the calls": (len(_took_calls(scene, release)), 1, 1 + again),
        "order": (len({line["order"] for line in scene.told("order", rollout=rollout)}), 0 if again else 1, 1),
    }
    wrong = [f"{name}: {count} times" for name, (count, least, most) in found.items() if not least <= count <= most]
    return wrong + [f"outcome {verdict}" for verdict in {*outcomes, shown["devices"][0]["verdict"]} - {VERDICT}]


def _took_calls(scene: Scene, release: Tiny) -> list[Any]:
    return [line for line in scene.told("worker", version=release.version) if line["msg"].endswith("takes the calls")]


def run(runs: int, seed: int, say: Say, scene: Scene) -> tuple[int, dict[int, list[str]]]:
    """So many runs on one manager and one agent, which go on from one to the next; the violations by seed."""
    found: dict[int, list[str]] = {}
    for number in range(runs):
        plan, began = Plan.of(seed + number), time.monotonic()
        violations = one(scene, plan)
        say(f"  {plan}: {time.monotonic() - began:.1f} s, {'; '.join(violations) or 'ok'}")
        if violations:
            found[plan.seed] = violations
            say(_story(scene.agent.folder))
    return runs, found


def _story(folder: Path) -> str:
    """The end of the agent's log, for who has to find out why."""
    lines = (folder / "log" / "agent.log").read_text(errors="replace").splitlines()[-30:]
    return "\n".join(f"    {one['ts']} {one['event']} {one['msg']}" for one in map(json.loads, lines))
