"""`rollout approve`: what is shown is what was hashed, a person is asked, a script must name the plan."""

from typing import Any

import pytest

from edgeops.cli.remote import rollouts
from edgeops.wire import canonical
from edgeops.wire.keys import sha256

NAMES = ["pi-1", "pi-2"]
PLAN = {
    "rollout": "r-1", "model": "digits", "version": 2, "release": "e" * 64, "variant": None, "slot": "main", "previous": None,
    "selector": "all", "devices": {"count": 2, "sha256": sha256(canonical.encode(NAMES))}, "waves": ["1", "100%"],
    "policy": {"dwell_s": 600}, "trial": {}, "budget_bytes": 0, "proposed_by": "anna", "needed": 2, "expires": 1_900_000_000,
}  # fmt: skip
DIGEST = sha256(canonical.encode(PLAN))


def rollout(status: str = "proposed", **more: Any) -> dict[str, Any]:
    """A rollout as the API shows it."""
    approval = {"needed": 2, "expires": 1_900_000_000, "digest": DIGEST, "plan": PLAN, "given": [{"who": "anna", "at": 1}]}
    return {
        "id": "r-1", "model": "digits", "version": 2, "to": "all", "status": status, "waves": [], "approval": approval | more,
        "devices": [{"device": name, "wave": 1} for name in NAMES],
    }  # fmt: skip


@pytest.fixture
def answers(straw, monkeypatch: pytest.MonkeyPatch):
    """A proposed rollout; a person who says yes."""
    straw.answers["GET", "/rollouts/r-1"] = rollout()
    straw.answers["POST", "/rollouts/r-1/approve"] = rollout("running")
    monkeypatch.setattr(rollouts.typer, "confirm", lambda *_args, **_more: True)
    return straw


def approved(straw) -> list[Any]:
    """The bodies of approvals that were sent."""
    return [body for method, path, body in straw.asked if method == "POST" and path.endswith("/approve")]


def test_a_person_sees_the_plan_and_is_asked(answers, edgeops, monkeypatch: pytest.MonkeyPatch):
    """All of the plan, its digest and who agreed so far; a no sends nothing."""
    ran = edgeops("rollout", "approve", "r-1")
    assert (ran.code, approved(answers)) == (0, [{"digest": DIGEST}])
    for word in (DIGEST, "anna", "digits", "1, 100%", "dwell_s=600", "started rollout r-1"):
        assert word in ran.out
    monkeypatch.setattr(rollouts.typer, "confirm", lambda *_args, **_more: False)
    ran = edgeops("rollout", "approve", "r-1")
    assert (ran.code, len(approved(answers)), "[not-confirmed]" in ran.err) == (2, 1, True)


def test_who_is_meant_is_named(answers, edgeops):
    """The devices wave by wave, twenty of them and how many more; no line is wider than a terminal may be."""
    names = [f"device-{number:03}" for number in range(50)]
    policy = {f"some_longer_limit_{number}": number for number in range(12)}
    plan = PLAN | {"devices": {"count": 50, "sha256": sha256(canonical.encode(names))}, "policy": policy}
    shown = rollout(plan=plan, digest=sha256(canonical.encode(plan)))
    shown |= {"devices": [{"device": name, "wave": 1 + (number > 4)} for number, name in enumerate(names)]}
    shown |= {"policy": policy, "trial": {}}
    answers.answers["GET", "/rollouts/r-1"] = shown
    said = edgeops("rollout", "approve", "r-1").out
    assert all(name in said for name in names[:20]) and names[20] not in said and "… and 30 more" in said
    assert said.index("wave 1") < said.index("device-000") < said.index("wave 2") < said.index("device-005")
    assert said.index("digits:2") < said.index("variant") < said.index("waves") < said.index("policy")
    lines = [*said.splitlines(), *edgeops("rollout", "show", "r-1").out.splitlines()]
    assert max(map(len, lines)) <= 120 and sum("some_longer_limit_0" in line for line in lines) == 2
    assert sha256(canonical.encode(names)) not in said


def test_a_script_names_the_plan(answers, edgeops):
    """Without being asked, with --json too, --digest is a must, and must be the plan's."""
    for words in (("--yes",), ("--json",)):
        assert "[digest-missing]" in edgeops("rollout", "approve", "r-1", *words).err
    assert "[plan-mismatch]" in edgeops("rollout", "approve", "r-1", "--yes", "--digest", "0" * 64).err
    assert approved(answers) == []
    assert edgeops("rollout", "approve", "r-1", "--yes", "--digest", DIGEST).code == 0
    assert edgeops("rollout", "approve", "r-1", "--json", "--digest", DIGEST).json["status"] == "running"
    assert approved(answers) == [{"digest": DIGEST}] * 2


@pytest.mark.parametrize("lie", ["plan", "devices", "digest"])
def test_what_is_shown_must_be_what_was_hashed(answers, edgeops, lie: str):
    """A manager that shows one plan, or one list of devices, and has another approved, gets no approval."""
    shown = rollout()
    if lie == "plan":
        shown["approval"]["plan"] = PLAN | {"version": 1}
    elif lie == "devices":
        shown["devices"] = shown["devices"][:1]
    else:
        shown["approval"]["digest"] = "a" * 64
    answers.answers["GET", "/rollouts/r-1"] = shown
    ran = edgeops("rollout", "approve", "r-1")
    assert (ran.code, approved(answers), "[plan-mismatch]" in ran.err) == (3, [], True)


def test_what_needs_nobody_is_not_approved(answers, edgeops):
    """A rollout that one person started."""
    answers.answers["GET", "/rollouts/r-1"] = rollout("running") | {"approval": None}
    assert "[not-proposed]" in edgeops("rollout", "approve", "r-1").err


def test_starting_says_what_is_missing(straw, edgeops):
    """`rollout start --approvals 2` sends the number and says what the other person types."""
    straw.answers["POST", "/rollouts"] = rollout()
    ran = edgeops("rollout", "start", "digits:2", "--to", "all", "--approvals", "2")
    assert straw.asked[0][2]["approvals"] == 2
    assert f"another operator must agree: `edgeops rollout approve r-1 --digest {DIGEST}`" in ran.out
    assert DIGEST in edgeops("rollout", "start", "digits:2", "--to", "all", "--approvals", "2", "--json").out
    straw.answers["POST", "/rollouts/r-1/reject"] = rollout("aborted") | {"why": "rejected by bob: no"}
    assert "rejected by bob: no" in edgeops("rollout", "reject", "r-1", "--why", "no").out
    straw.answers["GET", "/rollouts/r-1"] = rollout()
    assert DIGEST in edgeops("rollout", "show", "r-1").out
