"""/tokens: who may use this API, and in which role. For admins only."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from edgeops.manager import access

from .auth import Admin, TheHub

router = APIRouter(prefix="/tokens", tags=["tokens"])


class NewApiToken(BaseModel, extra="forbid"):
    """A token to make: `role` is viewer, operator or admin; without `ttl_s` (seconds) it does not expire."""

    name: str
    role: str
    ttl_s: Annotated[int | None, Field(ge=60, le=10 * 365 * 86_400)] = None


@router.get("")
def listed(hub: TheHub, _caller: Admin) -> dict[str, Any]:
    """All tokens, without their text."""
    return {"tokens": access.listed(hub)}


@router.post("", status_code=201)
def new(hub: TheHub, caller: Admin, body: NewApiToken) -> dict[str, Any]:
    """Make a token; its text is shown only here."""
    return access.new(hub, caller.name, body.name, body.role, body.ttl_s)


@router.delete("/{name}")
def withdraw(hub: TheHub, caller: Admin, name: str) -> dict[str, Any]:
    """Make a token worthless at once; the last one of an admin stays."""
    return access.withdraw(hub, caller.name, name)
