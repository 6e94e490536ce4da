"""The words of the update machine: a slot's state, the events that reach it, the commands it gives."""

from dataclasses import dataclass, field

from edgeops.wire.conditions import Conditions, Facts

WORKING = ("waiting", "fetch", "verify", "install", "ready", "trial", "proven", "rollback")
PHASES = ("idle", *WORKING)
GATED = {"waiting": "fetch", "fetch": "fetch", "ready": "activate", "proven": "commit"}
"""Which conditions count in which phase: in `fetch` they must go on to hold."""
MAX_BAD = 16
MAX_OUTBOX = 16


@dataclass(frozen=True, slots=True)
class Build:
    """One release in one variant, as a device holds it. Its limits (bytes, ms) and its stream do not make it another."""

    release: str
    variant: str
    model: str
    version: int
    memory_bytes: int = field(default=512 << 20, compare=False)
    load_ms: int = field(default=30_000, compare=False)
    call_ms: int = field(default=5_000, compare=False)
    stream: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Target:
    """What the newest desired document asks of the slot. `order` is its counter; `build` None means: hold nothing.

    `attempts` bounds restarts while working on it; `fetch_s`, `work_s` and `trial_s` bound its phases; the rest judges the trial
    (edgeops.wire.desired.Trial). `stream` names the signed list its objects travel in, `most_bytes` is all that list may hold.
    `conditions` gate fetching, activating and committing.
    """

    order: int
    action: str
    rollout: str = ""
    build: Build | None = None
    attempts: int = 3
    stream: str = ""
    trial_s: int = 60
    min_calls: int = 0
    max_error_ppm: int = 10_000
    max_latency_ratio_ppm: int = 3_000_000
    fetch_s: int = 86_400
    work_s: int = 600
    most_bytes: int = 0
    conditions: Conditions = field(default_factory=Conditions)

    def gate(self, phase: str) -> tuple[str, ...]:
        """The terms that must hold to leave `phase` (in `fetch`: to stay)."""
        terms: tuple[str, ...] = getattr(self.conditions, GATED[phase]) if phase in GATED else ()
        return terms


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an order ended; kept until the manager has acknowledged a report that told of it, that is one numbered above `after`
    (-1: not stored yet)."""

    order: int
    rollout: str
    release: str
    verdict: str
    reason: str = ""
    detail: str = ""
    after: int = field(default=-1, compare=False)


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot's whole state. `current` is committed and is what must run after any restart; `previous` is kept for going back.

    `target` is being worked on while `phase` is not idle. `deadline` is in the shell's seconds (monotonic within a boot).
    `attempts` counts restarts while the target could have caused them, `restarts` all. `unproven` and `cleared` matter in `proven`:
    the trial saw no traffic; the manager has let the barrier commit. `untried`: `current` was committed without traffic.
    `calm`: the agent was stopped in an orderly way, so the next start says nothing about the target. `until` is the deadline of
    waiting to fetch and fetching together.
    """

    phase: str = "idle"
    current: Build | None = None
    previous: Build | None = None
    target: Target | None = None
    order: int = 0
    attempts: int = 0
    deadline: int = 0
    failure: tuple[str, str] = ("", "")
    bad: tuple[str, ...] = ()
    outbox: tuple[Outcome, ...] = ()
    last: Outcome | None = None
    restarts: int = 0
    unproven: bool = False
    cleared: bool = False
    untried: bool = False
    calm: bool = False
    until: int = 0


# Events. `order` ties an answer to the question; answers to older questions change nothing.


@dataclass(frozen=True, slots=True)
class Offered:
    """A believed desired document asks this of the slot."""

    target: Target
    now: int


@dataclass(frozen=True, slots=True)
class Done:
    """The work of `phase` for `order` succeeded; `unproven` marks a trial that ended without traffic."""

    phase: str
    order: int
    now: int
    unproven: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """The work of `phase` for `order` failed. `unfit` says this device never can; `lost` that `current` cannot run."""

    phase: str
    order: int
    now: int
    reason: str
    detail: str = ""
    unfit: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """What is committed turned out damaged or unable to run."""

    release: str
    now: int
    reason: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The agent is being stopped by somebody who means to."""


@dataclass(frozen=True, slots=True)
class Restarted:
    """The agent started; nothing done before is believed."""

    now: int


@dataclass(frozen=True, slots=True)
class Acked:
    """The manager has stored what the reports up to `report` told."""

    report: int


@dataclass(frozen=True, slots=True)
class Sensed:
    """What is known of the device now, `consent` ("yes" or "no") for the order at hand included."""

    facts: Facts
    now: int


@dataclass(frozen=True, slots=True)
class Cleared:
    """The manager lets what waits at a barrier under an order up to `order` commit."""

    order: int


@dataclass(frozen=True, slots=True)
class Voided:
    """A root has raised the epoch: no order given before counts any more."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""

    now: int


Event = Offered | Done | Failed | Lost | Restarted | Stopped | Acked | Tick | Sensed | Cleared | Voided

# Commands. All idempotent: doing one twice is doing it once.


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get every object of the target that is not there with its right hash."""

    target: Target


@dataclass(frozen=True, slots=True)
class Verify:
    """Check every object of the target against its hash."""

    target: Target


@dataclass(frozen=True, slots=True)
class Install:
    """Lay the target out so that it can be run; what runs stays untouched."""

    target: Target


@dataclass(frozen=True, slots=True)
class Try:
    """Start the target beside the current build, run golden vectors, let it take the calls, watch it."""

    target: Target


@dataclass(frozen=True, slots=True)
class Sense:
    """Answer with Sensed now, and again whenever a fact has changed while the phase lasts."""


@dataclass(frozen=True, slots=True)
class Run:
    """Let this build take the calls (None: let nothing run), after checking its hashes."""

    build: Build | None


@dataclass(frozen=True, slots=True)
class Discard:
    """Delete whatever neither current nor previous needs."""

    keep: tuple[Build, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Send the reported state."""


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send a Tick at this time."""

    at: int


Command = Fetch | Verify | Install | Try | Sense | Run | Discard | Report | WakeAt
