"""/credential: how a browser, which has no client certificate, is let in at the broker. Proven by the device's identity key.

Browsers reach this from a page of the same origin only: no other origin is named in any answer.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, Field

from edgeops.manager import credential
from edgeops.wire.errors import Unreachable

from .auth import TheHub, TheRunning
from .enroll import ENVELOPE, Envelope, judged

router = APIRouter(prefix="/credential", tags=["enrolment"])
PROOF = ENVELOPE | {
    "description": "A `credential` envelope, signed by the device's identity key: fleet, device, incarnation, nonce."
}


class Asking(BaseModel):
    """Which device asks."""

    device: Annotated[str, Field(max_length=64)]


@router.post("/challenge", status_code=201)
def challenge(hub: TheHub, body: Annotated[Asking, Body()]) -> dict[str, Any]:
    """A nonce to sign, good for a minute and once."""
    return credential.challenge(hub, body.device)


@router.post("", status_code=201, openapi_extra={"requestBody": PROOF})
async def issue(hub: TheHub, running: TheRunning, request: Request, body: Envelope) -> dict[str, Any]:
    """Where and with which user name and password to connect, until when. An older credential of the device ends."""
    if running is None:
        raise Unreachable("no-broker", "no broker runs beside this API; ask the manager that runs one")

    def issued() -> dict[str, Any]:
        answer = credential.issue(hub, body)
        running.silencer.tell()
        return answer

    return await judged(request, issued)
