"""/devices: register, look, label, revoke."""

from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import BaseModel, Field

from edgeops.manager import devices, enrol, status

from .auth import Operator, TheHub, TheRunning, Viewer

router = APIRouter(prefix="/devices", tags=["devices"])
Ttl = Annotated[int | None, Field(ge=60, le=90 * 86_400)]


class NewDevice(BaseModel):
    """A device to register; its token lives for `ttl_s` seconds."""

    id: str
    labels: dict[str, str] = {}
    ttl_s: Ttl = None


class NewToken(BaseModel):
    """How long the new token lives, in seconds."""

    ttl_s: Ttl = None


class Labels(BaseModel):
    """Labels to set; null or an empty text removes one."""

    labels: dict[str, str | None]


@router.get("")
def listed(hub: TheHub, _caller: Viewer, selector: str | None = None) -> dict[str, Any]:
    """All devices, or those a selector matches."""
    return {"devices": status.selected(hub, selector)}


@router.post("", status_code=201)
def register(hub: TheHub, caller: Operator, body: NewDevice) -> dict[str, Any]:
    """Register a device; the enrolment token is shown only here."""
    return enrol.register(hub, caller.name, body.id, body.labels, body.ttl_s)


@router.get("/{device}")
def show(hub: TheHub, _caller: Viewer, device: str) -> dict[str, Any]:
    """Everything known about one device."""
    return devices.show(hub, device)


@router.patch("/{device}")
def label(hub: TheHub, caller: Operator, device: str, body: Labels) -> dict[str, Any]:
    """Set or remove labels."""
    return devices.relabel(hub, caller.name, device, body.labels)


@router.post("/{device}/token", status_code=201)
def token(hub: TheHub, caller: Operator, device: str, body: Annotated[NewToken, Body()] = NewToken()) -> dict[str, Any]:
    """A new enrolment token; older ones become worthless."""
    return enrol.reissue(hub, caller.name, device, body.ttl_s)


@router.post("/{device}/revoke")
def revoke(hub: TheHub, running: TheRunning, caller: Operator, device: str) -> dict[str, Any]:
    """Take a device's credentials away, at the broker too."""
    shown = enrol.revoke(hub, caller.name, device)
    if running:
        running.cut_off()
    return shown
