"""/releases and /models: signed elsewhere, verified and kept here."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel

from edgeops.manager import releases
from edgeops.wire import canonical

from .auth import Operator, TheHub, Viewer

router = APIRouter(tags=["releases"])


class NewRelease(BaseModel, extra="forbid"):
    """A release envelope, as its JSON object or as text."""

    envelope: dict[str, Any] | str


@router.post("/releases", status_code=201)
def store(hub: TheHub, caller: Operator, body: NewRelease) -> dict[str, Any]:
    """Store a release whose signature verifies and whose objects are here (else 409 with `missing`)."""
    # Lone surrogates pass, and are refused with everything else that is not canonical.
    sealed = body.envelope.encode("utf-8", "surrogatepass") if isinstance(body.envelope, str) else canonical.encode(body.envelope)
    return releases.accept(hub, caller.name, sealed)


@router.get("/releases")
def listed(hub: TheHub, _caller: Viewer) -> dict[str, Any]:
    """All releases."""
    return {"releases": releases.listed(hub)}


@router.get("/releases/{model}/{version}")
def show(hub: TheHub, _caller: Viewer, model: str, version: Annotated[int, Path(ge=1, le=canonical.LIMIT)]) -> dict[str, Any]:
    """One release, with its envelope."""
    with hub.store.read() as tx:
        row = releases.must_find(tx, model, version)
    return {**releases.view(hub, row), "envelope": row["envelope"].decode()}


@router.get("/models")
def models(hub: TheHub, _caller: Viewer) -> dict[str, Any]:
    """All models with their versions."""
    return {"models": releases.models(hub)}
