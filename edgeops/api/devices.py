"""/devices: register, look, label, revoke, end."""

from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import BaseModel, Field

from edgeops.manager import devices, enrol, register, status
from edgeops.manager.register import Wanted
from edgeops.manager.serve import Running

from .auth import Operator, TheHub, TheRunning, Viewer

router = APIRouter(prefix="/devices", tags=["devices"])
Ttl = Annotated[int | None, Field(ge=60, le=90 * 86_400)]


class NewDevice(BaseModel, extra="forbid"):
    """A device to register; its token lives for `ttl_s` seconds. One with the `fingerprint` of its identity key needs no token.

    With `approval` an operator must approve it when it comes; `reissue` takes the id of a decommissioned device.
    """

    id: str
    labels: dict[str, str] = {}
    ttl_s: Ttl = None
    approval: bool = False
    fingerprint: Annotated[str, Field(max_length=128)] = ""
    reissue: bool = False


class NewToken(BaseModel, extra="forbid"):
    """How long the new token lives, in seconds."""

    ttl_s: Ttl = None


class Labels(BaseModel, extra="forbid"):
    """Labels to set; null or an empty text removes one."""

    labels: dict[str, str | None]


@router.get("")
def listed(hub: TheHub, _caller: Viewer, selector: str | None = None) -> dict[str, Any]:
    """All devices, or those a selector matches."""
    return {"devices": status.selected(hub, selector)}


@router.post("", status_code=201)
def new(hub: TheHub, caller: Operator, body: NewDevice) -> dict[str, Any]:
    """Register a device; the enrolment token is shown only here."""
    wanted = Wanted(body.labels, body.ttl_s, body.approval, body.fingerprint, body.reissue)
    return register.register(hub, caller.name, body.id, wanted)


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
    return register.reissue(hub, caller.name, device, body.ttl_s)


@router.post("/{device}/revoke")
def revoke(hub: TheHub, running: TheRunning, caller: Operator, device: str) -> dict[str, Any]:
    """Take a device's credentials away, at the broker too; `silenced` once that was shown, else `missing` says what is."""
    return _out(running, enrol.revoke(hub, caller.name, device))


@router.post("/{device}/decommission")
def decommission(hub: TheHub, running: TheRunning, caller: Operator, device: str) -> dict[str, Any]:
    """End a device for good, at the broker too; only `reissue` gives its id to another."""
    return _out(running, enrol.decommission(hub, caller.name, device))


def _out(running: Running | None, shown: dict[str, Any]) -> dict[str, Any]:
    """With what the broker showed of it; without a broker there is nothing to show."""
    return shown | (running.silence(shown["id"]) if running else {})


@router.post("/{device}/release")
def release(hub: TheHub, caller: Operator, device: str) -> dict[str, Any]:
    """Let a device out of quarantine, after its clone is gone."""
    return enrol.release(hub, caller.name, device)


def seen_out(running: Running | None, device: str) -> dict[str, Any]:
    """`silenced`: whether the broker was seen to keep the device out; else what is `missing`."""
    if running is None:
        return {"silenced": False, "silenced_ms": None, "missing": "no broker runs beside this API"}
    return running.silence(device)
