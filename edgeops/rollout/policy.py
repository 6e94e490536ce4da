"""The rules of one rollout: every knob with its default, its bounds, its unit and one sentence that says what it does."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, cast

from edgeops.wire.errors import Misuse

Setting = bool | int | float | str
PPM = 1_000_000
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Knob:
    """One setting of a rollout as data, for `--help`, the documentation and the check of fleet.toml."""

    name: str
    default: Setting
    low: Setting
    high: Setting
    unit: str
    help: str


def _knob(default: Setting, low: Setting, high: Setting, unit: str, text: str) -> Any:
    return field(default=default, metadata={"low": low, "high": high, "unit": unit, "help": text})


@dataclass(frozen=True, slots=True)
class Policy:
    """How careful a rollout is; raises `Misuse("policy-invalid")` when a value is out of bounds or contradicts another."""

    success_fraction: float = _knob(
        0.9, 0.01, 1.0, "fraction", "A wave passes when committed / started reaches this; a wave that misses it stops the rollout."
    )
    dwell_s: int = _knob(
        600, 0, 30 * DAY_S, "s", "A wave must hold its fraction this long before the next opens; falling below starts it again."
    )
    min_devices: int = _knob(
        1, 1, 1_000_000, "devices", "Started devices a wave needs before its fraction is judged (never more than the wave has)."
    )
    wave_timeout_s: int = _knob(
        DAY_S, 1, 365 * DAY_S, "s", "A wave that has not reached its fraction by then stops the rollout; also bounds a recall."
    )
    silence_s: int = _knob(
        1_800, 1, 30 * DAY_S, "s", "Unexplained silence after activation that makes a device `unknown`; a clean goodbye pauses it."
    )
    silence_failure_s: int = _knob(
        14_400, 1, 60 * DAY_S, "s", "Unexplained silence after activation that counts as a failure (verdict `silent`)."
    )
    device_deadline_s: int = _knob(
        43_200, 1, 60 * DAY_S, "s", "A device that started and has no outcome by then has failed; a clean goodbye pauses it."
    )
    rollout_deadline_s: int = _knob(
        30 * DAY_S, 1, 730 * DAY_S, "s", "A rollout still running by then stops; resuming grants the same term again."
    )
    max_failures: int = _knob(
        100, 0, 10_000_000, "devices", "Hard stop: more failed devices than this, over all waves, stop the rollout."
    )
    max_failure_ppm: int = _knob(
        200_000, 0, PPM, "ppm of started", "Hard stop: a larger share of failures among started devices stops the rollout."
    )
    hard_stop_min_started: int = _knob(
        10, 1, 1_000_000, "devices", "Started devices the hard stop's share needs before it acts; its count acts from the first."
    )
    count_unproven: bool = _knob(
        True, False, True, "yes/no", "Whether a device that committed without traffic (`committed-unproven`) counts as committed."
    )

    def __post_init__(self) -> None:
        for knob in DEFAULTS.values():
            check_setting(knob, getattr(self, knob.name))
        if self.dwell_s > self.wave_timeout_s:
            raise _invalid(f"dwell_s ({self.dwell_s}) is longer than wave_timeout_s ({self.wave_timeout_s}): shorten the dwell")
        if self.silence_s > self.silence_failure_s:
            raise _invalid(
                f"silence_s ({self.silence_s}) is longer than silence_failure_s ({self.silence_failure_s}): "
                "a device must become unknown before it becomes a failure"
            )

    @property
    def success_ppm(self) -> int:
        """The success fraction in parts per million, so that comparisons are exact."""
        return round(self.success_fraction * PPM)


def _invalid(text: str) -> Misuse:
    return Misuse("policy-invalid", f"rollout policy: {text}")


def check_setting(knob: Knob, value: object) -> None:
    """Raise `Misuse("policy-invalid")` unless `value` has the knob's type and lies within its bounds."""
    if isinstance(knob.default, bool):
        if not isinstance(value, bool):
            raise _invalid(f"{knob.name} must be true or false, not {value!r}")
        return
    wanted: tuple[type, ...] = (int, float) if isinstance(knob.default, float) else (int,)
    if isinstance(value, bool) or not isinstance(value, wanted):
        kind = "a number" if float in wanted else "a whole number"
        raise _invalid(f"{knob.name} must be {kind} ({knob.unit}), not {value!r}")
    if not knob.low <= value <= knob.high:  # type: ignore[operator]
        raise _invalid(f"{knob.name} = {value} is out of bounds: {knob.low} to {knob.high} ({knob.unit})")


DEFAULTS: Mapping[str, Knob] = MappingProxyType(
    {f.name: Knob(f.name, cast(Setting, f.default), **f.metadata) for f in fields(Policy)}
)


def policy_from(settings: Mapping[str, object]) -> Policy:
    """Build a policy from named settings; the rest are defaults. Raises `Misuse("policy-unknown" | "policy-invalid")`."""
    for name, value in settings.items():
        if name not in DEFAULTS:
            near = difflib.get_close_matches(name, DEFAULTS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(DEFAULTS)}"
            raise Misuse("policy-unknown", f"rollout policy: there is no setting {name!r}; {hint}")
        check_setting(DEFAULTS[name], value)
    return Policy(**dict(settings))  # type: ignore[arg-type]
