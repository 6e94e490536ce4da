"""A rollout that needs a second person: nothing moves before, and what was approved is what starts."""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from manager_house import Clock, Fleet
from sqlalchemy import text

from edgeops.manager import access, approvals, reconcile, rollouts
from edgeops.manager.hub import Hub
from edgeops.store import audit, rows
from edgeops.store.tables import rollouts as table
from edgeops.wire.errors import Misuse


@pytest.fixture
def fleet(hub: Hub, clock: Clock) -> Fleet:
    """Three enrolled devices that are online, and a release."""
    made = Fleet(hub, clock, ["a", "b", "c"])
    made.births()
    made.letters()
    made.publish(1)
    return made


def proposed(fleet: Fleet, needed: int = 2, **order: Any) -> tuple[str, str]:
    """(rollout, digest of its plan) of a proposal by "me"."""
    rollout = fleet.start(approvals=needed, **order)
    return rollout, fleet.show(rollout)["approval"]["digest"]


def deeds(hub: Hub) -> list[str]:
    """What the audit log says was done to rollouts and settings."""
    with hub.store.read() as tx:
        return [f"{one['who']} {one['action']}" for one in audit.page(tx, 100) if one["action"].startswith(("rollout-", "setting"))]


def refused(fleet: Fleet, who: str, rollout: str, digest: str) -> str:
    """The reason an approval is refused with; the rollout is as it was."""
    before = fleet.show(rollout)
    with pytest.raises(Misuse) as error:
        rollouts.approve(fleet.hub, who, rollout, digest)
    assert fleet.show(rollout) == before
    assert fleet.deliver() == {}
    return error.value.reason


def test_nothing_moves_before_the_second_person(fleet: Fleet) -> None:
    """Proposed: shown with its plan, no device is told; the approval of another starts it as it stands."""
    rollout, digest = proposed(fleet, waves="1,100%")
    shown = fleet.show(rollout)
    plan = shown["approval"]["plan"]
    assert (shown["status"], shown["counts"]["started"]) == ("proposed", 0)
    assert [one["who"] for one in shown["approval"]["given"]] == ["me"]
    assert (plan["model"], plan["version"], plan["waves"], plan["devices"]["count"], plan["proposed_by"]) == (
        "digits", 1, ["1", "100%"], 3, "me",
    )  # fmt: skip
    reconcile.tick(fleet.hub)
    assert fleet.deliver() == {}
    assert rollouts.approve(fleet.hub, "you", rollout, digest)["status"] == "running"
    first = fleet.show(rollout)["devices"][0]["device"]
    assert set(fleet.deliver()) == {first}
    assert fleet.show(rollout)["approval"]["digest"] == digest
    assert deeds(fleet.hub) == ["me rollout-propose", "you rollout-approve"]


def test_an_approval_ends_with_its_token(fleet: Fleet, clock: Clock) -> None:
    """Withdrawn or expired before the start, it counts no longer, the proposer's neither; one made anew is another token."""
    for name in ("me", "you", "she"):
        access.new(fleet.hub, "root", name, "operator", 3_600 if name == "she" else None)
    rollout, digest = proposed(fleet, 3)
    assert rollouts.approve(fleet.hub, "she", rollout, digest)["status"] == "proposed"
    access.withdraw(fleet.hub, "root", "me")
    access.new(fleet.hub, "root", "me", "operator")
    assert [one["who"] for one in fleet.show(rollout)["approval"]["given"]] == ["she"]
    assert rollouts.approve(fleet.hub, "you", rollout, digest)["status"] == "proposed"
    clock.now += 3_600
    assert rollouts.approve(fleet.hub, "me", rollout, digest)["status"] == "proposed"
    assert [one["who"] for one in fleet.show(rollout)["approval"]["given"]] == ["you", "me"]
    assert rollouts.approve(fleet.hub, "her by login", rollout, digest)["status"] == "running"


@pytest.mark.parametrize("name", ["engine", "ingest", "documents", "setup", "manager", "settings"])
def test_no_token_bears_a_name_of_the_manager(hub: Hub, name: str) -> None:
    """Whoever reads the audit log must not take a person for the manager."""
    with pytest.raises(Misuse, match="token-name"):
        access.new(hub, "root", name, "admin")


def test_the_starter_alone_is_not_two(fleet: Fleet) -> None:
    """Each person counts once, the proposer has counted already; three means three."""
    rollout, digest = proposed(fleet, 3)
    assert refused(fleet, "me", rollout, digest) == "approved-already"
    assert rollouts.approve(fleet.hub, "you", rollout, digest)["status"] == "proposed"
    assert refused(fleet, "you", rollout, digest) == "approved-already"
    assert rollouts.approve(fleet.hub, "she", rollout, digest)["status"] == "running"


def test_another_plan_is_not_approved(fleet: Fleet) -> None:
    """A digest of something else, or of another proposal with the same words."""
    rollout, digest = proposed(fleet)
    other, others = proposed(fleet)
    assert digest != others
    assert refused(fleet, "you", rollout, others) == "plan-mismatch"
    assert refused(fleet, "you", rollout, "0" * 64) == "plan-mismatch"
    rollouts.approve(fleet.hub, "you", other, others)
    fleet.letters()
    with pytest.raises(Misuse, match="rollout-conflict"):
        rollouts.approve(fleet.hub, "you", rollout, digest)


def change(fleet: Fleet, rollout: str, part: str) -> None:
    """Somebody with the database in his hands changes a proposed plan."""
    with fleet.hub.store.write() as tx:
        row = rows.get(tx, table, id=rollout)
        assert row
        plan, state = dict(row["plan"]), dict(row["state"])
        if part in ("release", "version", "slot", "previous"):
            state["plan"] = state["plan"] | {part: {"release": "e" * 64, "version": 7, "slot": "other", "previous": "f" * 64}[part]}
        elif part == "waves":
            state["plan"] = state["plan"] | {"waves": state["plan"]["waves"][-1:]}
        elif part == "policy":
            state["plan"] = state["plan"] | {"policy": state["plan"]["policy"] | {"success_fraction": 0.01}}
        elif part == "needed":
            plan["approvals"] = plan["approvals"] | {"needed": 3}
        elif part == "devices":
            tx.execute(text("UPDATE assignments SET device = 'z' WHERE position = 1"))
        elif part == "order":
            tx.execute(text("UPDATE assignments SET position = 2 - position"))
        elif part == "trial":
            plan["trial"] = plan["trial"] | {"window_s": 1}
        else:
            plan[part] = {"variant": "base", "to": "id=a", "budget_bytes": 9, "who": "she"}[part]
        rows.change(tx, table, {"id": rollout}, plan=plan, state=state)


PARTS = (
    "release", "version", "slot", "previous", "waves", "policy", "needed", "devices", "order", "trial", "variant", "to",
    "budget_bytes", "who",
)  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_a_changed_plan_is_not_approved(fleet: Fleet, part: str) -> None:
    """Whichever part was changed in the database after the proposal: neither the old digest nor the new one starts it."""
    rollout, digest = proposed(fleet, waves="1,100%")
    change(fleet, rollout, part)
    assert refused(fleet, "you", rollout, digest) == "plan-mismatch"
    assert refused(fleet, "you", rollout, fleet.show(rollout)["approval"]["digest"]) == "plan-changed"


def test_fewer_than_the_setting_says_cannot_be_asked_for(fleet: Fleet) -> None:
    """Who asks for one where the setting says two proposes; a setting raised since the proposal counts too."""
    fleet.hub = replace(fleet.hub, settings=replace(fleet.hub.settings, rollout_approvals=2))
    rollout = fleet.start(approvals=1)
    assert fleet.show(rollout)["status"] == fleet.show(fleet.start())["status"] == "proposed"
    digest = fleet.show(rollout)["approval"]["digest"]
    fleet.hub = replace(fleet.hub, settings=replace(fleet.hub.settings, rollout_approvals=3))
    assert rollouts.approve(fleet.hub, "you", rollout, digest)["status"] == "proposed"
    assert rollouts.approve(fleet.hub, "she", rollout, digest)["status"] == "running"


def test_a_changed_setting_is_in_the_audit_log(fleet: Fleet) -> None:
    """Once for each change, at the start after it."""
    two = replace(fleet.hub, settings=replace(fleet.hub.settings, rollout_approvals=2))
    for hub in (fleet.hub, two, two, fleet.hub):
        approvals.tell_setting(hub)
    with fleet.hub.store.read() as tx:
        assert [one["detail"] for one in audit.page(tx, 10, audit.Wanted(action="setting-change"))] == ["1 -> 2", "2 -> 1"]


def test_a_proposal_expires(fleet: Fleet, clock: Clock) -> None:
    """After a day it cannot be approved, and the next tick ends it."""
    rollout, digest = proposed(fleet)
    clock.now += approvals.LIFE_S - 1
    reconcile.tick(fleet.hub)
    assert fleet.show(rollout)["status"] == "proposed"
    clock.now += 1
    assert refused(fleet, "you", rollout, digest) == "proposal-expired"
    reconcile.tick(fleet.hub)
    reconcile.tick(fleet.hub)
    assert (fleet.show(rollout)["status"], fleet.show(rollout)["why"]) == ("aborted", "not approved within 24 hours")
    assert deeds(fleet.hub) == ["me rollout-propose", "engine rollout-expire", "engine rollout-aborted"]


@pytest.mark.parametrize("who", ["me", "you"])
def test_a_proposal_is_rejected(fleet: Fleet, who: str) -> None:
    """By another, or withdrawn by its proposer: for good, with the reason, and nobody was told anything."""
    rollout, digest = proposed(fleet)
    assert rollouts.reject(fleet.hub, who, rollout, "not today")["why"] == f"rejected by {who}: not today"
    assert refused(fleet, "she", rollout, digest) == "not-proposed"
    with pytest.raises(Misuse, match="not-proposed"):
        rollouts.reject(fleet.hub, who, rollout)
    assert f"{who} rollout-reject" in deeds(fleet.hub)


def test_a_started_rollout_is_not_approved_again(fleet: Fleet) -> None:
    """Neither one that needed two nor one that needed nobody else."""
    rollout, digest = proposed(fleet)
    rollouts.approve(fleet.hub, "you", rollout, digest)
    fleet.letters()
    assert refused(fleet, "she", rollout, digest) == "not-proposed"
    for verb in ("pause", "abort"):
        rollouts.operate(fleet.hub, "me", rollout, verb)
    fleet.letters()
    alone = fleet.start()
    fleet.letters()
    assert fleet.show(alone)["approval"] is None
    assert refused(fleet, "you", alone, digest) == "not-proposed"
    with pytest.raises(Misuse, match="unknown-rollout"):
        rollouts.approve(fleet.hub, "you", "r-none", digest)


def test_one_person_holds_and_ends_but_does_not_pass_over_gates(fleet: Fleet) -> None:
    """Pause, resume after a pause and abort need nobody else; advance and resume after a halt are no part of the plan."""
    rollout, digest = proposed(fleet, waves="1,100%")
    rollouts.approve(fleet.hub, "you", rollout, digest)
    release = fleet.show(rollout)["release"]
    for verb in ("pause", "resume"):
        rollouts.operate(fleet.hub, "me", rollout, verb)
    with pytest.raises(Misuse, match="beyond-the-plan"):
        rollouts.operate(fleet.hub, "me", rollout, "advance")
    first = fleet.show(rollout)["devices"][0]["device"]
    fleet.report(first, rollout, "trial", release)
    fleet.report(first, rollout, "idle", release, "failed")
    assert fleet.show(rollout)["status"] == "halted"
    with pytest.raises(Misuse, match="beyond-the-plan"):
        rollouts.operate(fleet.hub, "me", rollout, "resume")
    assert rollouts.operate(fleet.hub, "me", rollout, "abort", "revert")["status"] in ("reverting", "aborted")


def test_a_proposal_blocks_nobody(fleet: Fleet) -> None:
    """Others may roll out to the same devices meanwhile."""
    proposed(fleet)
    assert fleet.show(fleet.start())["status"] == "running"


def starts_alone(module: ModuleType, fleet: Fleet, attack: str) -> bool:
    """Whether an attack starts a rollout with a copy of the rules."""
    rollout, digest = proposed(fleet, waves="1,100%")
    who = "me" if attack == "the same person" else "you"
    if attack == "another digest":
        digest = "0" * 64
    if attack == "a changed plan":
        change(fleet, rollout, "policy")
        digest = fleet.show(rollout)["approval"]["digest"]
    if attack == "too late":
        fleet.clock.now += approvals.LIFE_S
    if attack == "rejected":
        rollouts.reject(fleet.hub, "you", rollout)
    try:
        with fleet.hub.store.write() as tx:
            module.approve(fleet.hub, tx, who, rollout, digest)
    except Misuse:
        return False
    return bool(fleet.show(rollout)["status"] == "running")


# attack: a check of approvals.py, and what stands there in the copy that lets the attack through
MUTANTS = {
    "the same person": [('if any(one["who"] == who for one in given):', "if False:")],
    "another digest": [("if digest != found:", "if False:")],
    "a changed plan": [('if any(one["digest"] != found for one in given):', "if False:")],
    "too late": [('if plan["expires"] <= now:', "if False:")],
}


@pytest.mark.parametrize("attack", MUTANTS)
def test_a_copy_that_skips_a_check_lets_the_attack_through(fleet: Fleet, tmp_path: Path, attack: str) -> None:
    """Every check is needed: with it nothing starts, in a copy without it the attack starts the rollout."""
    assert not starts_alone(approvals, fleet, attack)
    module = copied(tmp_path, lambda source: mutated(source, MUTANTS[attack]))
    assert starts_alone(module, fleet, attack)


def mutated(source: str, changes: list[tuple[str, str]]) -> str:
    """The source with each check replaced; each stands there once."""
    for line, instead in changes:
        assert source.count(line) == 1, line
        source = source.replace(line, instead)
    return source


def copied(folder: Path, change_source: Callable[[str], str]) -> ModuleType:
    """A changed copy of approvals.py, imported."""
    path = folder / "approvals_mutant.py"
    path.write_text(change_source(Path(approvals.__file__).read_text("utf-8")), "utf-8")
    spec = importlib.util.spec_from_file_location("edgeops.manager.approvals_mutant", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    del sys.modules[spec.name]
    return module
