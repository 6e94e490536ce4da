"""What an operator asks for: which release goes to how many devices, in which waves, under which policy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

from edgeops.rollout import conditions
from edgeops.rollout.policy import DEFAULTS, PPM, Knob, Policy, policy_from
from edgeops.wire.conditions import Conditions
from edgeops.wire.errors import Misuse

MAX_WAVES = 50
_COUNT = re.compile(r"[0-9]{1,9}")
_SHARE = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,4}))?%")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Wave:
    """One step of a plan, cumulative: `count` is a number of devices, `share` is parts per million of all targets."""

    kind: Literal["count", "share"]
    amount: int

    def reach(self, targets: int) -> int:
        """Devices reached by the end of this wave out of `targets`; shares round up, so that 1 % of 20 is one device."""
        wanted = self.amount if self.kind == "count" else -(-targets * self.amount // PPM)
        return min(targets, wanted)

    def __str__(self) -> str:
        if self.kind == "count":
            return str(self.amount)
        whole, rest = divmod(self.amount, PPM // 100)
        return f"{whole}.{rest:04d}".rstrip("0").rstrip(".") + "%"


@dataclass(frozen=True, slots=True)
class Plan:
    """One rollout as ordered; `previous` is the release a recall returns to, None empties the slot.

    `conditions` are what its devices wait for; with a barrier (`conditions.EACH_WAVE`) each wave commits all or nothing.
    """

    rollout_id: str
    release: str
    model: str
    version: int
    slot: str
    previous: str | None
    waves: tuple[Wave, ...]
    policy: Policy = field(default_factory=Policy)
    conditions: Conditions = conditions.NONE

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.rollout_id):
            raise Misuse("plan-invalid", f"rollout id {self.rollout_id!r}: use 1 to 64 of A-Z a-z 0-9 _ -")
        check_waves(self.waves)

    @property
    def barrier(self) -> bool:
        """Whether each wave is a barrier."""
        return bool(self.conditions.barrier)

    @property
    def success_ppm(self) -> int:
        """The share of started devices a wave must keep: the policy's, but all of a barrier."""
        return PPM if self.barrier else self.policy.success_ppm

    def conditions_of(self, wave: int) -> Conditions:
        """What a device of a wave is told to wait for."""
        return replace(self.conditions, barrier=f"{self.rollout_id}-{wave + 1}") if self.barrier else self.conditions

    def reaches(self, targets: int) -> tuple[int, ...]:
        """Devices reached by the end of each wave, never falling: a wave already covered by the one before is empty."""
        reached: list[int] = []
        for wave in self.waves:
            reached.append(max(wave.reach(targets), reached[-1] if reached else 0))
        return tuple(reached)


def _refuse(text: str, why: str) -> Misuse:
    return Misuse(
        "waves-invalid",
        f"waves {text!r}: {why}. Write rising steps separated by commas: a bare number is devices, % a share, as in 1,10%,100%",
    )


def check_waves(waves: tuple[Wave, ...]) -> None:
    """Raise `Misuse("waves-invalid")` unless the waves rise within each kind and only the last one is everybody."""
    text = ",".join(map(str, waves))
    if not waves or waves[-1] != EVERYBODY:
        raise _refuse(text, "the last wave must be 100%")
    if len(waves) > MAX_WAVES:
        raise _refuse(text[:60], f"at most {MAX_WAVES} waves are possible, here are {len(waves)}")
    for wave in waves:
        if wave.amount <= 0 or (wave.kind == "share" and wave.amount > PPM):
            raise _refuse(text, f"{wave} is nobody or more than everybody")
    if EVERYBODY in waves[:-1]:
        raise _refuse(text, "nothing may follow 100%")
    for kind in ("count", "share"):
        for before, after in pairwise([w for w in waves if w.kind == kind]):
            if after.amount <= before.amount:
                raise _refuse(text, f"waves are cumulative and must rise, but {after} follows {before}")


def parse_waves(text: str) -> tuple[Wave, ...]:
    """Read `1,10%,100%`; a final 100 % is implied when missing. Raises `Misuse("waves-invalid")`."""
    waves: list[Wave] = []
    for part in (p.strip() for p in text.split(",")):
        if _COUNT.fullmatch(part):
            waves.append(Wave("count", int(part)))
        elif share := _SHARE.fullmatch(part):
            waves.append(Wave("share", int(share[1]) * 10_000 + int((share[2] or "").ljust(4, "0"))))
        else:
            raise _refuse(text, f"{part!r} is neither a number of devices nor a share" if part else "a step is empty")
    if waves[-1] != EVERYBODY:
        waves.append(EVERYBODY)
    check_waves(tuple(waves))
    return tuple(waves)


EVERYBODY = Wave("share", PPM)
SETTINGS: Mapping[str, Knob] = {**DEFAULTS, **conditions.SETTINGS}
"""All that may be set of a rollout by name, beside its waves."""


def check_rollout(waves: str, settings: Mapping[str, object]) -> None:
    """Raise `Misuse` unless waves and settings make a rollout: what `edgeops.fleet.wish.parse_wish` asks for."""
    parse_waves(waves)
    policy_from({name: value for name, value in settings.items() if name not in conditions.SETTINGS})
    conditions.conditions_from({name: value for name, value in settings.items() if name in conditions.SETTINGS})
