"""The nouns of the engine: the state of a rollout (counters, never devices), the events it hears, the commands it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgeops.rollout.plan import Plan

Status = Literal["pending", "running", "paused", "halted", "reverting", "finished", "aborted"]
Verdict = Literal["committed", "committed-unproven", "rolled-back", "failed", "unfit", "silent"]
Passed = Literal["", "earned", "forced", "empty", "unjudged"]
Decision = Literal["", "commit", "back"]
MAX_REASONS = 16
MAX_REASON_CHARS = 160


@dataclass(frozen=True, slots=True)
class WaveCount:
    """The counters of one wave. `size` is planned; late joiners of a dynamic group may lift `started` above it.

    `excused` and `excused_unfit` are the failures and refusals an operator has acknowledged by resuming after a halt.
    `unknown` is the latest number of started devices in unexplained silence. Times are seconds, None until they happen.
    Of a barrier: `proven` devices wait there and can hear us, `commit_by` is when the first of them is about to give up waiting,
    `decision` is what was decided for all; it goes from nothing to `commit` or `back`, and from `commit` to `back` at most.
    """

    size: int = 0
    up_to: int = 0
    opened_at: int | None = None
    deadline: int | None = None
    met_at: int | None = None
    passed: Passed = ""
    started: int = 0
    committed: int = 0
    unproven: int = 0
    rolled_back: int = 0
    failed: int = 0
    unfit: int = 0
    silent: int = 0
    unknown: int = 0
    excused: int = 0
    excused_unfit: int = 0
    proven: int = 0
    commit_by: int | None = None
    decision: Decision = ""

    @property
    def failures(self) -> int:
        """Devices that took the release and did not keep it: rolled back, failed or silent."""
        return self.rolled_back + self.failed + self.silent

    @property
    def settled(self) -> int:
        """Started devices whose outcome is known."""
        return self.committed + self.unproven + self.failures + self.unfit

    @property
    def in_flight(self) -> int:
        """Started devices without an outcome."""
        return self.started - self.settled

    @property
    def fresh_failures(self) -> int:
        """Failures nobody has acknowledged yet."""
        return self.failures - self.excused

    @property
    def judged(self) -> int:
        """The denominator: started, less devices that declared themselves unfit and less acknowledged failures."""
        return self.started - self.unfit - self.excused


@dataclass(frozen=True, slots=True)
class Reason:
    """One cause of bad outcomes and how many devices gave it."""

    verdict: str
    text: str
    count: int


@dataclass(frozen=True, slots=True)
class Rollout:
    """The whole state of a rollout. `current` is the index of the newest open wave, -1 before the start."""

    plan: Plan
    status: Status = "pending"
    now: int = 0
    targets: int = 0
    current: int = -1
    waves: tuple[WaveCount, ...] = ()
    reasons: tuple[Reason, ...] = ()
    why: str = ""
    waiting: int = 0
    paused_at: int | None = None
    deadline: int | None = None
    recall_deadline: int | None = None
    reverted: int = 0
    wake: int | None = None

    @property
    def wave(self) -> WaveCount:
        """The newest open wave; only to be asked once the rollout has started."""
        return self.waves[self.current]

    @property
    def is_last(self) -> bool:
        """Whether the newest open wave is the plan's last."""
        return self.current == len(self.waves) - 1

    @property
    def to_revert(self) -> int:
        """Devices that run the release or may yet run it: what a recall has to bring back."""
        return sum(w.committed + w.unproven + w.in_flight for w in self.waves)


@dataclass(frozen=True, slots=True)
class Started:
    """The operator starts the rollout over `targets` devices."""

    now: int
    targets: int
    who: str = "operator"


@dataclass(frozen=True, slots=True)
class DeviceStarted:
    """`n` more devices of a wave began to act on the release; sent once per device, before its outcome."""

    now: int
    wave: int
    n: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """One started device settled. The caller (the store) sends at most one per device and rollout: the engine has no names."""

    now: int
    wave: int
    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Relapsed:
    """A device that had settled with `was` runs the release no more, by its own decision: the model died after its trial."""

    now: int
    wave: int
    was: Verdict
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Silence:
    """`n` started devices of a wave are in unexplained silence now: the whole number, not a difference."""

    now: int
    wave: int
    n: int


@dataclass(frozen=True, slots=True)
class Proven:
    """`n` devices of a wave wait at its barrier and can hear us now, to be let commit before `by`: the whole number."""

    now: int
    wave: int
    n: int
    by: int | None = None


@dataclass(frozen=True, slots=True)
class Reverted:
    """`n` more devices run the previous release again after a recall; not sent for devices with a bad outcome."""

    now: int
    n: int = 1


@dataclass(frozen=True, slots=True)
class Tripped:
    """A gate outside the engine (the sequential test) found harm."""

    now: int
    gate: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passes. `waiting` = reachable devices of open waves yet to start.

    A wave does not pass before its timeout while there are any, so send a Tick when the number falls to zero.
    """

    now: int
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Paused:
    """The operator holds the rollout: nobody new starts, timers stand still."""

    now: int
    who: str = "operator"


@dataclass(frozen=True, slots=True)
class Resumed:
    """The operator goes on; after a halt this acknowledges every failure seen so far."""

    now: int
    who: str = "operator"


@dataclass(frozen=True, slots=True)
class Advanced:
    """The operator ends the open wave at once and opens the next."""

    now: int
    who: str = "operator"


@dataclass(frozen=True, slots=True)
class Aborted:
    """The operator gives the rollout up: `keep` leaves updated devices as they are, `revert` takes all of them back."""

    now: int
    mode: Literal["keep", "revert"]
    who: str = "operator"


OperatorEvent = Started | Paused | Resumed | Advanced | Aborted
DeviceEvent = DeviceStarted | Outcome | Relapsed | Silence | Proven | Reverted
Event = OperatorEvent | DeviceEvent | Tripped | Tick


@dataclass(frozen=True, slots=True)
class OpenWave:
    """Offer the release to the first `up_to` targets; wave `index` is the newest among them. Idempotent."""

    index: int
    up_to: int


@dataclass(frozen=True, slots=True)
class Recall:
    """Give every device of waves `first_wave`..`last_wave` the release `previous` again; None empties the slot. Idempotent."""

    previous: str | None
    last_wave: int
    first_wave: int = 0


@dataclass(frozen=True, slots=True)
class CommitWave:
    """Let every device commit that waits at the barrier of wave `index`, and whoever says so later. Idempotent."""

    index: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Offer the release to no device that has not started; started ones go on. Undone by the next OpenWave."""

    reason: str


@dataclass(frozen=True, slots=True)
class Notify:
    """Tell people; `kind` is a stable kebab-case word."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Audit:
    """Write this into the audit log."""

    text: str


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send a Tick at this time (seconds) or soon after."""

    time: int


Command = OpenWave | Recall | CommitWave | Stop | Notify | Audit | WakeAt
Commands = tuple[Command, ...]
