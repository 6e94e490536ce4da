"""The options of `rollout start` that are data elsewhere: every knob of the policy, every limit of the trial on the device, every
setting of what devices wait for.
"""

import inspect
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from edgeops.rollout.conditions import SETTINGS
from edgeops.rollout.policy import DEFAULTS, Knob
from edgeops.wire.desired import Trial

TRIAL = "trial_"
TRIAL_HELP = {
    "window_s": "How long the candidate is on trial on the device before it is committed. [s]",
    "min_calls": "Inferences the trial needs; without them it ends as committed-unproven. [calls]",
    "max_error_ppm": "Share of failed inferences above which the device rolls back. [ppm]",
    "max_latency_ratio_ppm": "Latency against the previous release above which it rolls back; 0 is off. [ppm]",
    "load_ms": "How long the model may take to load. [ms]",
    "call_ms": "How long one inference may take. [ms]",
    "memory_bytes": "Memory the model may take beyond what the empty inference worker needs. [bytes]",
    "attempts": "How often a device tries before it gives the release up. [tries]",
}


def start_options() -> dict[str, inspect.Parameter]:
    """All of them by parameter name; left alone they are None, so that the manager's own defaults hold."""
    told = {TRIAL + name: f"Trial: {text} (default: {getattr(Trial(), name)})" for name, text in TRIAL_HELP.items()}
    knobs = {**SETTINGS, **DEFAULTS}
    return {name: _knob(knob) for name, knob in knobs.items()} | {name: _option(name, int, text) for name, text in told.items()}


def chosen(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The chosen values as the request names them: `policy` and, if any of theirs was given, `conditions` and `trial`."""
    given = {name: value for name, value in values.items() if value is not None}
    trial = {name[len(TRIAL) :]: value for name, value in given.items() if name.startswith(TRIAL)}
    conditions = {name: value for name, value in given.items() if name in SETTINGS}
    policy = {name: value for name, value in given.items() if name in DEFAULTS}
    return {"policy": policy} | ({"conditions": conditions} if conditions else {}) | ({"trial": trial} if trial else {})


def _knob(knob: Knob) -> inspect.Parameter:
    usual = "nothing" if knob.default == "" else knob.default
    return _option(knob.name, type(knob.default), f"{knob.help} [{knob.unit}] (default: {usual})")


def _option(name: str, kind: type, text: str) -> inspect.Parameter:
    flag = name.replace("_", "-")
    option = typer.Option(f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}", help=text, show_default=False)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option])
