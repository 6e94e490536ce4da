"""/pending: devices that wait for an operator's word, before they are enrolled or after a long absence."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from edgeops.manager import register

from .auth import Operator, TheHub, Viewer

router = APIRouter(prefix="/pending", tags=["enrolment"])


class Meant(BaseModel, extra="forbid"):
    """Who is meant: devices by id, each with the fingerprint that GET /pending showed; if one differs by now, nothing is done."""

    devices: Annotated[
        dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=128)]], Field(min_length=1, max_length=10_000)
    ]


@router.get("")
def listed(hub: TheHub, _caller: Viewer, selector: Annotated[str, Field(max_length=2_000)] = "all") -> dict[str, Any]:
    """Who waits and is matched: id, kind (enrol or renew), fingerprint of the identity key, since when."""
    return {"pending": register.pending(hub, selector)}


@router.post("/approve")
def approve(hub: TheHub, caller: Operator, body: Meant) -> dict[str, Any]:
    """Let them in: each gets its credentials when it asks again with the same identity key."""
    return {"approved": register.decide(hub, caller.name, "granted", body.devices)}


@router.post("/reject")
def reject(hub: TheHub, caller: Operator, body: Meant) -> dict[str, Any]:
    """Turn them away, until they are given a new token."""
    return {"rejected": register.decide(hub, caller.name, "rejected", body.devices)}
