"""The manager's tests of conditions and barriers notice seeded bugs: each is a changed line in a copy of one function's code."""

import importlib.util
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest
from manager_house import Clock

from edgeops.manager import approvals, barriers, conduct, desire, outcomes, reconcile
from edgeops.manager.hub import Hub
from edgeops.wire.errors import Rejected


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"mutated_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


waits, walls = _load("test_conditions"), _load("test_barriers")
LESS = "plan=replace(job.rollout.plan, conditions=NONE)"
MUTANTS: dict[str, tuple[ModuleType, str, str, Callable[..., None], dict[str, Any]]] = {
    "commit sent to a wave that is not whole": (
        barriers, "    there = sum(", "    there = r.wave.size or sum(", walls.test_all_are_told_when_the_last_has_passed, {},
    ),
    "decision not stored": (
        conduct, "state=codec.encode(state)", "state=codec.encode(before)", walls.test_all_are_told_when_the_last_has_passed, {},
    ),
    "told once only": (
        outcomes, '        barriers.tell(hub, tx, row["device"])', "        pass",
        walls.test_whoever_still_waits_after_the_decision_is_told_again, {},
    ),
    "a device that is away counts": (
        barriers, ' and presence(row, now) == "online"', "", walls.test_who_is_away_holds_the_decision_up, {},
    ),
    "a revoked device counts": (
        barriers, 'row["status"] == "enrolled" and presence', "presence", walls.test_a_revoked_device_is_not_counted, {},
    ),
    "decides too late": (
        outcomes, 'max(row["offered_at"], heard)}', 'max(row["offered_at"], heard) + 60}',
        walls.test_no_decision_near_the_first_devices_deadline, {},
    ),
    "a word for orders yet to come": (
        barriers, 'min(report["counter"], counting(hub, tx, row)["counter"])', 'report["counter"]',
        walls.test_no_word_under_an_order_yet_to_come, {},
    ),
    "back to waiting is not noticed": (
        outcomes, ' or row["status"] == barriers.PROVEN)', ")", walls.test_a_device_back_at_the_beginning_is_not_ready,
        {"phase": "waiting"},
    ),
    "recall forgotten": (
        conduct, "            _recall(hub, tx, job, previous, range(first_wave, last_wave + 1))", "            pass",
        walls.test_one_that_is_lost_before_the_decision_ends_it_for_all, {"verdict": "failed"},
    ),
    "recalls only who has not proven it": (
        conduct, '(*AT_WORK, "settled")', '("started", "settled")',
        walls.test_one_that_is_lost_before_the_decision_ends_it_for_all, {"verdict": "failed"},
    ),
    "going back waits": (conduct, 'if name != "conditions"}', "if name}", walls.test_going_back_waits_for_nothing, {}),
    "who leaves the fleet is waited for": (
        reconcile, "    barrier = job", "    barrier = False and job",
        walls.test_who_leaves_the_fleet_ends_it_for_all_before_the_decision, {},
    ),
    "two commands of one number": (
        desire, '["command"] + 1\n    rows.change(tx, devices, {"id": device}, command=counter)', '["command"] + 1',
        walls.test_commands_have_numbers_of_their_own, {},
    ),
    "must not named": (
        desire, "    return (UNDERSTOOD,) if", "    return () if",
        waits.test_an_order_carries_its_conditions_and_says_that_they_must_be_understood, {},
    ),
    "unfit device offered less": (
        conduct, "        check_understood(job.rollout, device)\n",
        f'        job = job if device["capabilities"].get("understands") else replace(job, rollout=replace(job.rollout, {LESS}))\n',
        waits.test_an_agent_that_would_not_wait_is_unfit, {"understands": ()},
    ),
    "a first birth is not looked at": (
        reconcile, '                if status == "offered" and', "                if False and",
        waits.test_a_first_birth_may_show_that_a_device_is_unfit, {},
    ),
    "deadline not extended": (
        reconcile, "    waits_s = allowed_s(rollout.plan.conditions)", "    waits_s = 0",
        waits.test_lawful_waiting_is_not_lateness, {},
    ),
    "conditions are not what one approves": (
        approvals, "if conditions != NONE else {}", "if False else {}", waits.test_conditions_are_part_of_what_another_approves, {},
    ),
}  # fmt: skip


@contextmanager
def patched(module: ModuleType, old: str, new: str) -> Iterator[None]:
    """The module's functions, wherever they were imported to, run the code of a changed copy of its source."""
    text = Path(module.__file__ or "").read_text(encoding="utf-8")
    assert text.count(old) == 1, f"the patch must fit exactly once: {old}"
    copy = ModuleType(module.__name__)
    copy.__dict__.update(module.__dict__)
    exec(compile(text.replace(old, new), module.__file__ or "", "exec"), copy.__dict__)
    before = {}
    for name, thing in vars(module).items():
        if isinstance(thing, FunctionType) and thing.__module__ == module.__name__:
            before[thing], thing.__code__ = thing.__code__, getattr(copy, name).__code__
    try:
        yield
    finally:
        for function, code in before.items():
            function.__code__ = code


@pytest.mark.parametrize("name", MUTANTS)
def test_each_seeded_bug_is_caught(request: pytest.FixtureRequest, hub: Hub, clock: Clock, name: str) -> None:
    """The test that is there for it fails; without the bug it passes, as it does among its own."""
    module, old, new, test, known = MUTANTS[name]
    asked = inspect.signature(test).parameters.keys() - known.keys()
    given = {one: request.getfixturevalue(one) for one in asked if one != "fleet"} | known
    if "fleet" in asked:
        given["fleet"] = waits.online(hub, clock) if test.__module__ == waits.__name__ else walls.running_one(hub, clock)
    with patched(module, old, new), pytest.raises((AssertionError, KeyError, Rejected)):
        test(**given)
