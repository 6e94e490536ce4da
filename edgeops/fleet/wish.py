"""`fleet.toml`: the whole wish for a fleet as one checked value - groups, models, rollout policies, limits.

The text comes in as a string; the knobs of a rollout policy come in as data (`edgeops.rollout.plan.SETTINGS`), because this
room does not know rollouts. Every complaint names its path in the file and what to do; all complaints come at once.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from edgeops.fleet.selector import Selector, parse_selector
from edgeops.wire.errors import EdgeopsError, Misuse

Setting = bool | int | float | str
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TABLES = ("fleet", "groups", "models", "rollouts", "limits")
_MODEL_KEYS = ("model", "group", "slot", "version", "rollout")
DEFAULT_WAVES = "1,10%,50%,100%"
MAX_COMPLAINTS = 20


class KnobLike(Protocol):
    """What this room must know of one policy setting."""

    @property
    def default(self) -> Setting:
        """The value when the file says nothing; its type is the setting's type."""
        ...

    @property
    def low(self) -> Setting:
        """The smallest number allowed."""
        ...

    @property
    def high(self) -> Setting:
        """The largest number allowed."""
        ...


@dataclass(frozen=True, slots=True)
class Bound:
    """One limit of the fleet: its default, its bounds and one sentence."""

    default: int
    low: int
    high: int
    help: str


# Checked here; what enforces them comes with applying the file, which is a later version's job.
LIMITS: Mapping[str, Bound] = {
    "open_rollouts": Bound(20, 1, 1_000, "Rollouts that may be open at the same time."),
    "devices_per_minute": Bound(1_000, 1, 1_000_000, "Devices told of a new release per minute, over all rollouts."),
    "download_budget_bytes": Bound(0, 0, 2**40, "Bytes one device may fetch for one release; 0 means no limit."),
}


@dataclass(frozen=True, slots=True)
class ModelWish:
    """One model on one group: `version` None means the newest released one, `rollout` is the name of a policy.

    `name` is the name of this wish; it is the model's name too unless `model` says otherwise.
    """

    name: str
    model: str
    group: str
    slot: str
    version: int | None
    rollout: str


@dataclass(frozen=True, slots=True)
class RolloutWish:
    """One named policy: its waves as written and only the settings the file sets."""

    name: str
    waves: str
    settings: Mapping[str, Setting] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Wish:
    """The checked content of fleet.toml; names are unique and every reference resolves. The policy `default` always exists."""

    fleet: str
    groups: Mapping[str, Selector] = field(hash=False)
    models: tuple[ModelWish, ...]
    rollouts: Mapping[str, RolloutWish] = field(hash=False)
    limits: Mapping[str, int] = field(hash=False)


def parse_wish(
    text: str,
    knobs: Mapping[str, KnobLike],
    check_rollout: Callable[[str, Mapping[str, Setting]], object],
    file: str = "fleet.toml",
) -> Wish:
    """Read and check the file's text.

    `knobs` names the settings of a policy; `check_rollout(waves, settings)` raises `Misuse` when they do not fit together.
    Raises `Misuse("fleet-toml-invalid")` listing every complaint as `file: path: what is wrong; what to do`.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Misuse("fleet-toml-invalid", f"{file}: not TOML: {error}; correct this line first") from error
    check = _Check(file)
    check.keys("", raw, _TABLES)
    fleet = check.name("fleet", raw.get("fleet", "fleet"))
    groups = dict(_groups(check, check.table("groups", raw)))
    rollouts = dict(_rollouts(check, check.table("rollouts", raw), knobs, check_rollout))
    models = tuple(_models(check, check.table("models", raw), groups, rollouts))
    limits = _limits(check, check.table("limits", raw))
    _no_double_slots(check, models)
    check.finish()
    return Wish(fleet, groups, models, rollouts, limits)


class _Check:
    """Collects complaints, so that one reading shows them all."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.complaints: list[str] = []

    def say(self, path: str, text: str) -> None:
        """Note one complaint about a path."""
        self.complaints.append(f"{self.file}: {path}: {text}" if path else f"{self.file}: {text}")

    def finish(self) -> None:
        """Raise all complaints at once, if there are any."""
        if self.complaints:
            shown = self.complaints[:MAX_COMPLAINTS]
            more = len(self.complaints) - len(shown)
            raise Misuse("fleet-toml-invalid", "\n".join([*shown, *([f"and {more} more"] if more else [])]))

    def keys(self, path: str, table: Mapping[str, Any], known: Collection[str]) -> None:
        """Complain about every key that is not known."""
        for key in table:
            if key not in known:
                self.say(f"{path}.{key}" if path else key, f"unknown key; {suggest(key, known)}")

    def table(self, key: str, raw: Mapping[str, Any], path: str = "") -> dict[str, Any]:
        """The sub-table `key`, empty when absent or no table."""
        value = raw.get(key, {})
        if isinstance(value, dict):
            return value
        where = f"{path}.{key}" if path else key
        self.say(where, f"must be a table, not {value!r}; write [{where}]")
        return {}

    def name(self, path: str, value: object) -> str:
        """A name, or a complaint and a harmless stand-in."""
        if isinstance(value, str) and _NAME.fullmatch(value):
            return value
        self.say(path, f"{value!r} is not a name; use 1 to 64 of A-Z a-z 0-9 _ -")
        return "-"


def suggest(word: str, known: Collection[str]) -> str:
    """What to do about an unknown word: the nearest known one, or all of them."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known)) or 'none yet'}"


def _groups(check: _Check, tables: Mapping[str, Any]) -> Iterator[tuple[str, Selector]]:
    for name in tables:
        path = f"groups.{name}"
        check.name(path, name)
        table = check.table(name, tables, "groups")
        check.keys(path, table, ("select",))
        select = table.get("select")
        selector = Selector()
        if not isinstance(select, str):
            check.say(f"{path}.select", 'missing; write select = "all" or a selector such as "site=berlin"')
        else:
            try:
                selector = parse_selector(select)
            except Misuse as error:
                check.say(f"{path}.select", error.message)
        yield name, selector


def _rollouts(
    check: _Check,
    tables: Mapping[str, Any],
    knobs: Mapping[str, KnobLike],
    check_rollout: Callable[[str, Mapping[str, Setting]], object],
) -> Iterator[tuple[str, RolloutWish]]:
    yield "default", RolloutWish("default", DEFAULT_WAVES, {})
    for name in tables:
        path = f"rollouts.{name}"
        check.name(path, name)
        before = len(check.complaints)
        table = check.table(name, tables, "rollouts")
        check.keys(path, table, ("waves", *knobs))
        waves = table.get("waves", DEFAULT_WAVES)
        if not isinstance(waves, str):
            check.say(f"{path}.waves", f'must be text such as "{DEFAULT_WAVES}", not {waves!r}')
            waves = DEFAULT_WAVES
        for key, knob in knobs.items():
            if key in table and (wrong := _wrong(table[key], knob.default, knob.low, knob.high)):
                check.say(f"{path}.{key}", wrong)
        settings = {key: table[key] for key in knobs if key in table}
        try:
            # Settings that are wrong by themselves are not judged together, but the waves are judged all the same.
            check_rollout(str(waves), settings if len(check.complaints) == before else {})
        except EdgeopsError as error:
            check.say(f"{path}.waves" if error.reason == "waves-invalid" else path, error.message)
        yield name, RolloutWish(name, str(waves), settings)


def _models(check: _Check, tables: Mapping[str, Any], groups: Collection[str], rollouts: Collection[str]) -> Iterator[ModelWish]:
    for name in tables:
        path = f"models.{name}"
        check.name(path, name)
        table = check.table(name, tables, "models")
        check.keys(path, table, _MODEL_KEYS)
        group, rollout = table.get("group"), table.get("rollout", "default")
        if group is None:
            check.say(
                f"{path}.group", f"missing; name one of the groups: {', '.join(sorted(groups)) or 'none yet, add [groups.NAME]'}"
            )
        elif not isinstance(group, str) or group not in groups:
            check.say(f"{path}.group", f"there is no group {group!r}; {suggest(str(group), groups)}")
        if not isinstance(rollout, str) or rollout not in rollouts:
            check.say(f"{path}.rollout", f"there is no rollout policy {rollout!r}; {suggest(str(rollout), rollouts)}")
        slot = check.name(f"{path}.slot", table.get("slot", "main"))
        model = check.name(f"{path}.model", table.get("model", name))
        yield ModelWish(name, model, str(group), slot, _version(check, path, table.get("version", "latest")), str(rollout))


def _version(check: _Check, path: str, value: object) -> int | None:
    if value == "latest":
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    check.say(f"{path}.version", f'must be a whole number from 1 or "latest", not {value!r}')
    return None


def _limits(check: _Check, table: Mapping[str, Any]) -> dict[str, int]:
    check.keys("limits", table, LIMITS)
    for key, bound in LIMITS.items():
        if key in table and (wrong := _wrong(table[key], bound.default, bound.low, bound.high)):
            check.say(f"limits.{key}", wrong)
    return {key: table.get(key, bound.default) for key, bound in LIMITS.items()}


def _wrong(value: object, default: Setting, low: Setting, high: Setting) -> str:
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else f"must be true or false, not {value!r}"
    if isinstance(default, str):
        return "" if isinstance(value, str) else f"must be text, not {value!r}"
    wanted: tuple[type, ...] = (int, float) if isinstance(default, float) else (int,)
    if isinstance(value, bool) or not isinstance(value, int | float) or not isinstance(value, wanted):
        return f"must be a {'number' if isinstance(default, float) else 'whole number'}, not {value!r}"
    return "" if low <= value <= high else f"{value} is out of bounds; choose {low} to {high}"  # type: ignore[operator]


def _no_double_slots(check: _Check, models: tuple[ModelWish, ...]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for wish in models:
        other = seen.setdefault((wish.group, wish.slot), wish.name)
        if other != wish.name:
            check.say(
                f"models.{wish.name}.slot",
                f"slot {wish.slot!r} of group {wish.group!r} is taken by models.{other}; name another slot",
            )
