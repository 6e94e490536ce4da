"""/pending: devices that wait for an operator's word, before they are enrolled or after a long absence."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from edgeops.manager import register
from edgeops.wire.errors import Misuse

from .auth import Operator, TheHub, Viewer

router = APIRouter(prefix="/pending", tags=["enrolment"])


class Meant(BaseModel, extra="forbid"):
    """Who is meant: devices by id, or all waiting ones that a selector matches; one of both."""

    ids: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=10_000)] = []
    selector: Annotated[str, Field(max_length=2_000)] | None = None

    def check(self) -> None:
        """Raise Misuse("ids-or-selector") unless exactly one of both is given."""
        if bool(self.ids) == (self.selector is not None):
            raise Misuse("ids-or-selector", "name the devices meant, or give a selector (`all` for all who wait)")


@router.get("")
def listed(hub: TheHub, _caller: Viewer) -> dict[str, Any]:
    """Who waits: id, kind (enrol or renew), fingerprint of the identity key, since when."""
    return {"pending": register.pending(hub)}


@router.post("/approve")
def approve(hub: TheHub, caller: Operator, body: Meant) -> dict[str, Any]:
    """Let them in: each gets its credentials when it asks again with the same identity key."""
    body.check()
    return {"approved": register.decide(hub, caller.name, "granted", body.ids, body.selector)}


@router.post("/reject")
def reject(hub: TheHub, caller: Operator, body: Meant) -> dict[str, Any]:
    """Turn them away, until they are given a new token."""
    body.check()
    return {"rejected": register.decide(hub, caller.name, "rejected", body.ids, body.selector)}
