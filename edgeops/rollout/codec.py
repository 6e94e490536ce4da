"""Plans and rollouts as JSON-able dicts, for the store. Integers, strings, booleans and the one fraction; nothing else.

What later versions added may be missing: a rollout that an earlier version has stored goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, get_args

from edgeops.rollout.plan import Plan, Wave
from edgeops.rollout.policy import policy_from
from edgeops.rollout.state import Decision, Reason, Rollout, Status, WaveCount
from edgeops.wire.conditions import Conditions
from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.fields import Fields

FORMAT = 1
ADDED = frozenset({"conditions"})


def encode_plan(plan: Plan) -> dict[str, Any]:
    """A plan as a JSON-able dict."""
    return {**asdict(plan), "waves": [asdict(w) for w in plan.waves], "conditions": plan.conditions.payload()}


def encode(rollout: Rollout) -> dict[str, Any]:
    """A rollout with its plan as a JSON-able dict."""
    raw = asdict(rollout)
    raw["plan"] = encode_plan(rollout.plan)
    raw["waves"] = [asdict(w) for w in rollout.waves]
    raw["reasons"] = [asdict(x) for x in rollout.reasons]
    return {"format": FORMAT, **raw}


def decode_plan(raw: Mapping[str, Any]) -> Plan:
    """The inverse of `encode_plan`. Raises `Misuse("rollout-state-invalid")`, and `plan-invalid` for impossible plans."""
    try:
        values = _exactly(Plan, raw)
        values["waves"] = tuple(Wave(**w) for w in values["waves"])
        values["policy"] = policy_from(values["policy"])
        values["conditions"] = Conditions.parse(Fields.of(values.get("conditions", {}), "conditions"))
        return Plan(**values)
    except (TypeError, KeyError, ValueError, Rejected) as error:
        raise _broken(error) from error


def decode(raw: Mapping[str, Any]) -> Rollout:
    """The inverse of `encode`. Raises `Misuse("rollout-state-invalid")` for another format or a damaged state."""
    try:
        if raw["format"] != FORMAT:
            raise ValueError(f"format {raw['format']!r}, this version reads {FORMAT}")
        values = _exactly(Rollout, {k: v for k, v in raw.items() if k != "format"})
        values["plan"] = decode_plan(values["plan"])
        values["waves"] = tuple(WaveCount(**w) for w in values["waves"])
        values["reasons"] = tuple(Reason(**x) for x in values["reasons"])
        return _sane(Rollout(**values))
    except (TypeError, KeyError, ValueError) as error:
        raise _broken(error) from error


def _sane(r: Rollout) -> Rollout:
    if r.status not in get_args(Status):
        raise ValueError(f"status {r.status!r}")
    if not -1 <= r.current < max(1, len(r.waves)) or (r.waves and len(r.waves) != len(r.plan.waves)):
        raise ValueError(f"wave {r.current} of {len(r.waves)}, planned {len(r.plan.waves)}")
    if (r.current >= 0) != bool(r.waves) or (r.status == "running" and r.current < 0):
        raise ValueError(f"{r.status} with {len(r.waves)} waves at wave {r.current}")
    if any(w.settled > w.started or min(w.started, w.settled) < 0 for w in r.waves):
        raise ValueError("more devices settled than started")
    if any(w.decision not in get_args(Decision) for w in r.waves):
        raise ValueError(f"decisions {[w.decision for w in r.waves]}")
    return r


def _exactly(kind: type[Plan] | type[Rollout], raw: Mapping[str, Any]) -> dict[str, Any]:
    names = {f.name for f in fields(kind)}
    if wrong := (names ^ set(raw)) - (names & ADDED):
        raise KeyError(f"missing or foreign fields: {sorted(wrong)}")
    return dict(raw)


def _broken(error: Exception) -> Misuse:
    return Misuse(
        "rollout-state-invalid",
        f"the stored rollout cannot be read ({error}): restore the database or use the version of edgeops that wrote it",
    )
