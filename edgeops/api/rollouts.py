"""/rollouts: start or propose, approve, reject, look, pause, resume, advance, abort."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body
from pydantic import BaseModel, Field

from edgeops.manager import rollouts
from edgeops.wire.canonical import LIMIT

from .auth import Operator, TheHub, Viewer

router = APIRouter(prefix="/rollouts", tags=["rollouts"])


class NewRollout(BaseModel, extra="forbid"):
    """Which release goes to which devices, in which waves. `policy` holds knobs of the engine, `trial` limits on the device,
    `conditions` what devices wait for: fetch_when, activate_when, offline_commit, barrier, wait_s, commit_wait_s.
    """

    model: str
    version: Annotated[int, Field(ge=1, le=LIMIT)]
    to: str
    waves: str = "1,100%"
    slot: str = "main"
    policy: dict[str, bool | int | float] = {}
    trial: dict[str, Annotated[int, Field(ge=0, le=LIMIT)]] = {}
    conditions: dict[str, bool | Annotated[int, Field(le=LIMIT)] | Annotated[str, Field(max_length=1024)]] = {}
    variant: str | None = None
    budget_bytes: Annotated[int, Field(ge=0, le=LIMIT)] = 0
    approvals: Annotated[int | None, Field(ge=1, le=16)] = None


class Approval(BaseModel, extra="forbid"):
    """The digest of the plan one agrees to, as `GET /rollouts/{rollout}` shows it."""

    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Refusal(BaseModel, extra="forbid"):
    """Why not, for the audit log."""

    why: Annotated[str, Field(max_length=500)] = ""


class Abort(BaseModel, extra="forbid"):
    """`keep` leaves updated devices as they are, `revert` takes all of them back."""

    mode: Literal["keep", "revert"] = "keep"


@router.post("", status_code=201)
def create(hub: TheHub, caller: Operator, body: NewRollout) -> dict[str, Any]:
    """Start a rollout; where more operators than one must agree (`approvals`, or the setting), propose it: nothing starts yet."""
    return rollouts.create(hub, caller.name, body.model_dump())


@router.get("")
def listed(hub: TheHub, _caller: Viewer) -> dict[str, Any]:
    """All rollouts, newest first."""
    return {"rollouts": rollouts.listed(hub)}


@router.get("/{rollout}")
def show(hub: TheHub, _caller: Viewer, rollout: str) -> dict[str, Any]:
    """One rollout: waves, counters, reasons, a row for each device, what was sent."""
    return rollouts.show(hub, rollout)


@router.post("/{rollout}/approve")
def approve(hub: TheHub, caller: Operator, rollout: str, body: Approval) -> dict[str, Any]:
    """Agree to a proposed rollout as another operator than its proposer; the last approval it needs starts it."""
    return rollouts.approve(hub, caller.name, rollout, body.digest)


@router.post("/{rollout}/reject")
def reject(hub: TheHub, caller: Operator, rollout: str, body: Annotated[Refusal, Body()] = Refusal()) -> dict[str, Any]:
    """Refuse a proposed rollout for good."""
    return rollouts.reject(hub, caller.name, rollout, body.why)


@router.post("/{rollout}/pause")
def pause(hub: TheHub, caller: Operator, rollout: str) -> dict[str, Any]:
    """Hold it: nobody new starts."""
    return rollouts.operate(hub, caller.name, rollout, "pause")


@router.post("/{rollout}/resume")
def resume(hub: TheHub, caller: Operator, rollout: str) -> dict[str, Any]:
    """Go on; after a halt this acknowledges the failures so far."""
    return rollouts.operate(hub, caller.name, rollout, "resume")


@router.post("/{rollout}/advance")
def advance(hub: TheHub, caller: Operator, rollout: str) -> dict[str, Any]:
    """Open the next wave now."""
    return rollouts.operate(hub, caller.name, rollout, "advance")


@router.post("/{rollout}/abort")
def abort(hub: TheHub, caller: Operator, rollout: str, body: Annotated[Abort, Body()] = Abort()) -> dict[str, Any]:
    """Give it up."""
    return rollouts.operate(hub, caller.name, rollout, "abort", body.mode)
