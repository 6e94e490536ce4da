"""POST /enroll and POST /renew: proven by a one-time token or the identity key, not by an API token."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from edgeops.manager import enrol
from edgeops.wire.errors import Misuse

from .auth import TheHub, TheRunning

router = APIRouter(tags=["enrolment"])
MAX_RENEW = 32 << 10
RENEW = {
    "description": "A `renew` envelope: fleet, device, incarnation and csr.", "content": {"application/json": {}}, "required": True,
}  # fmt: skip


class Enrolment(BaseModel):
    """What a device sends to redeem its token: `identity` is the raw Ed25519 public key in hex."""

    token_device: Annotated[str, Field(max_length=64)]
    secret: Annotated[str, Field(max_length=128)]
    csr: Annotated[str, Field(max_length=8192)]
    identity: Annotated[str, Field(max_length=64)]
    agent: Annotated[str, Field(max_length=64)] = ""


@router.post("/enroll", status_code=201)
def enroll(hub: TheHub, running: TheRunning, body: Annotated[Enrolment, Body()]) -> dict[str, Any]:
    """Redeem a token: certificate, CA, first root and site documents, incarnation."""
    answer = enrol.redeem(hub, body.model_dump())
    if running:
        running.let_in(answer["device"], answer["incarnation"])
    return answer


@router.post("/renew", status_code=201, openapi_extra={"requestBody": RENEW})
async def renew(hub: TheHub, request: Request) -> dict[str, Any]:
    """A new certificate; the body is a `renew` envelope signed with the identity key."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_RENEW:
            raise Misuse("too-large", f"a renew envelope has at most {MAX_RENEW} bytes")
    return await run_in_threadpool(enrol.renew, hub, body)
