"""The desired document: what one device should run, per slot. Signed by the manager's online key, newest counter wins.

Also the other short documents of the online key: signed time, commands, floors (the latter signed by release keys).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .conditions import Conditions
from .fields import HEX64, ID, Fields, brief
from .root import URL

MAX_FLOORS = 1024  # models; a device keeps the floors of all it has heard of in one record
ACTIONS = ("run", "none", "prefetch")
# What need not be said. The limits of a trial always are: a default of the agent's version must not decide whether it passes.
USUAL_SLOT: Mapping[str, Any] = {"conditions": {}, "budget_bytes": 0}
# Least and most of each limit of a trial. A device adds them to its clock and keeps the sum; an order that it could not keep, or
# that would never end, is refused when it is given (by the manager) and when it is read (by the device): both by `Trial.parse`.
HOUR_MS = 3_600_000
TRIAL_BOUNDS: Mapping[str, tuple[int, int]] = {
    "window_s": (0, 7 * 86_400), "min_calls": (0, 10**9), "max_error_ppm": (0, 1_000_000),
    "max_latency_ratio_ppm": (0, 1_000_000_000), "load_ms": (0, HOUR_MS), "call_ms": (0, HOUR_MS), "memory_bytes": (0, 1 << 40),
    "attempts": (1, 20),
}  # fmt: skip
USUAL: Mapping[str, Any] = {"channel": "all", "sources": [], "must": []}


@dataclass(frozen=True, slots=True)
class Trial:
    """How a candidate is judged on the device, within TRIAL_BOUNDS. Units in the names; a ratio of 0 switches that check off."""

    window_s: int = 60
    min_calls: int = 0
    max_error_ppm: int = 10_000
    max_latency_ratio_ppm: int = 3_000_000
    load_ms: int = 30_000
    call_ms: int = 5_000
    memory_bytes: int = 512 << 20
    attempts: int = 3

    def payload(self) -> dict[str, int]:
        """The JSON payload."""
        return {name: getattr(self, name) for name in Trial.__slots__}

    @staticmethod
    def parse(fields: Fields) -> "Trial":
        """Read the limits; what is missing keeps its default. Raises Rejected for what lies outside TRIAL_BOUNDS."""
        usual = Trial()
        bounds = TRIAL_BOUNDS.items()
        return Trial(**{name: fields.number(name, least, getattr(usual, name), most) for name, (least, most) in bounds})


@dataclass(frozen=True, slots=True)
class SlotWish:
    """What a slot should do: `run` release R in variant V, hold nothing (`none`), or `prefetch` R."""

    action: str
    release: str = ""
    variant: str = ""
    stream: str = ""
    rollout: str = ""
    trial: Trial = field(default_factory=Trial)
    conditions: Conditions = field(default_factory=Conditions)
    budget_bytes: int = 0

    def payload(self) -> dict[str, Any]:
        """The JSON payload, as short as it can be."""
        if self.action == "none":
            return {"action": "none", "rollout": self.rollout}
        body = {
            "action": self.action, "release": self.release, "variant": self.variant, "stream": self.stream,
            "rollout": self.rollout, "trial": self.trial.payload(), "conditions": self.conditions.payload(),
            "budget_bytes": self.budget_bytes,
        }  # fmt: skip
        return brief(body, USUAL_SLOT)

    @staticmethod
    def parse(fields: Fields) -> "SlotWish":
        """Read one slot; raises Rejected."""
        action = fields.text("action")
        if action not in ACTIONS:
            raise fields.fail("action", ", ".join(ACTIONS))
        rollout = fields.text("rollout", ID, default="")
        if action == "none":
            return SlotWish("none", rollout=rollout)
        return SlotWish(
            action, fields.text("release", HEX64), fields.text("variant", ID), fields.text("stream", HEX64, default=""), rollout,
            Trial.parse(fields.sub("trial", {})), Conditions.parse(fields.sub("conditions", {})),
            fields.number("budget_bytes", default=0),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Desired:
    """The whole wish for one device; (epoch, counter) only ever grows. `issued`, `expires` are Unix seconds."""

    fleet: str
    device: str
    incarnation: int
    epoch: int
    counter: int
    issued: int
    expires: int
    slots: Mapping[str, SlotWish]
    channel: str = "all"
    sources: tuple[str, ...] = ()
    must: tuple[str, ...] = ()

    def payload(self) -> dict[str, Any]:
        """The JSON payload, as short as it can be."""
        body = {
            "fleet": self.fleet, "device": self.device, "incarnation": self.incarnation, "epoch": self.epoch,
            "counter": self.counter, "issued": self.issued, "expires": self.expires, "channel": self.channel,
            "slots": {name: slot.payload() for name, slot in self.slots.items()}, "sources": list(self.sources),
            "must": list(self.must),
        }  # fmt: skip
        return brief(body, USUAL)

    @staticmethod
    def parse(fields: Fields) -> "Desired":
        """Read a desired payload; raises Rejected."""
        return Desired(
            fields.text("fleet", ID), fields.text("device", ID), fields.number("incarnation", 1), fields.number("epoch"),
            fields.number("counter", 1), fields.number("issued"), fields.number("expires"),
            fields.each("slots", SlotWish.parse, 16), fields.text("channel", ID, default="all"),
            fields.texts("sources", URL, 8, ()), fields.texts("must", most=32, default=()),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SignedTime:
    """The manager's answer to a device's nonce: it is `now` (Unix seconds), and your newest counter is this."""

    fleet: str
    device: str
    nonce: str
    now: int
    epoch: int
    counter: int

    def payload(self) -> dict[str, Any]:
        """The JSON payload."""
        return {name: getattr(self, name) for name in SignedTime.__slots__}

    @staticmethod
    def parse(fields: Fields) -> "SignedTime":
        """Read a time payload; raises Rejected."""
        return SignedTime(
            fields.text("fleet", ID), fields.text("device", ID), fields.text("nonce", HEX64), fields.number("now"),
            fields.number("epoch"), fields.number("counter"),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Floor:
    """Least acceptable versions by model, raised by the release role after a rollout has finished."""

    fleet: str
    version: int
    floors: Mapping[str, int]

    def payload(self) -> dict[str, Any]:
        """The JSON payload."""
        return {"fleet": self.fleet, "version": self.version, "floors": dict(self.floors)}

    @staticmethod
    def parse(fields: Fields) -> "Floor":
        """Read a floor payload; raises Rejected."""
        return Floor(fields.text("fleet", ID), fields.number("version", 1), fields.counts("floors", MAX_FLOORS))


COMMANDS = ("ack", "commit")


@dataclass(frozen=True, slots=True)
class CommandDocument:
    """A command of the online key, numbered on its own.

    `ack`: what the reports numbered up to `upto` told is stored. `commit`: whatever waits at a barrier under an order up to `upto`
    may commit, since every device of that barrier has passed its trial.
    """

    fleet: str
    device: str
    incarnation: int
    epoch: int
    counter: int
    kind: str
    upto: int = 0

    def payload(self) -> dict[str, Any]:
        """The JSON payload."""
        return {name: getattr(self, name) for name in CommandDocument.__slots__}

    @staticmethod
    def parse(fields: Fields) -> "CommandDocument":
        """Read a command payload; raises Rejected."""
        if fields.text("kind") not in COMMANDS:
            raise fields.fail("kind", ", ".join(COMMANDS))
        return CommandDocument(
            fields.text("fleet", ID), fields.text("device", ID), fields.number("incarnation", 1), fields.number("epoch"),
            fields.number("counter", 1), fields.text("kind"), fields.number("upto"),
        )  # fmt: skip
