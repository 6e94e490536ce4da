"""/rollouts: start, look, pause, resume, advance, abort."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body
from pydantic import BaseModel, Field

from edgeops.manager import rollouts
from edgeops.wire.canonical import LIMIT

from .auth import Operator, TheHub, Viewer

router = APIRouter(prefix="/rollouts", tags=["rollouts"])


class NewRollout(BaseModel):
    """Which release goes to which devices, in which waves. `policy` holds knobs of the engine, `trial` limits on the device."""

    model: str
    version: Annotated[int, Field(ge=1, le=LIMIT)]
    to: str
    waves: str = "1,100%"
    slot: str = "main"
    policy: dict[str, bool | int | float] = {}
    trial: dict[str, Annotated[int, Field(ge=0, le=LIMIT)]] = {}
    variant: str | None = None
    budget_bytes: Annotated[int, Field(ge=0, le=LIMIT)] = 0


class Abort(BaseModel):
    """`keep` leaves updated devices as they are, `revert` takes all of them back."""

    mode: Literal["keep", "revert"] = "keep"


@router.post("", status_code=201)
def create(hub: TheHub, caller: Operator, body: NewRollout) -> dict[str, Any]:
    """Start a rollout."""
    return rollouts.create(hub, caller.name, body.model_dump())


@router.get("")
def listed(hub: TheHub, _caller: Viewer) -> dict[str, Any]:
    """All rollouts, newest first."""
    return {"rollouts": rollouts.listed(hub)}


@router.get("/{rollout}")
def show(hub: TheHub, _caller: Viewer, rollout: str) -> dict[str, Any]:
    """One rollout: waves, counters, reasons, a row for each device, what was sent."""
    return rollouts.show(hub, rollout)


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
