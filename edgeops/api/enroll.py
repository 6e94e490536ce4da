"""POST /enroll and POST /renew: proven by the identity key and what the manager knows of it, not by an API token."""

import time
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from edgeops.manager import enrol
from edgeops.wire.errors import Misuse, Rejected

from .auth import TheHub, TheRunning, Viewer
from .limits import Limiter, TooMany, neighbourhood

router = APIRouter(tags=["enrolment"])
# A device asks a few times in its life; these are for whoever asks for nothing but trouble. What is right is never counted, so
# that a stranger keeps no honest device behind the same address out: he only makes the wrong answers shorter.
WRONG, WRONG_IN_ALL, SPAN_S = 30, 600, 60.0
ENVELOPE = {"content": {"application/json": {}}, "required": True}
ENROL = ENVELOPE | {
    "description": "An `enrol` envelope, signed by the identity key in it: fleet, device, secret, identity, csr, agent."
}
RENEW = ENVELOPE | {"description": "A `renew` envelope, signed by the device's identity key: fleet, device, incarnation, seq, csr."}
JSON = "application/json"


class Strangers:
    """Counts what is wrong, by address and in all; `clock` is any that only goes forward."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_address, self._in_all = Limiter(WRONG, SPAN_S), Limiter(WRONG_IN_ALL, SPAN_S)

    def judge(self, host: str, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `call` answers; an error of it raises TooMany instead once there were too many."""
        try:
            return call()
        except (Misuse, Rejected) as error:
            now = self._clock()
            try:
                self._by_address.take(neighbourhood(host), now)
                self._in_all.take("", now)
            except TooMany as many:
                raise many from error
            raise


async def envelope(request: Request) -> bytes:
    """The body, whose size the door has bounded; raises Misuse("not-json")."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise Misuse("not-json", f"an envelope is sent as {JSON}")
    return await request.body()


Envelope = Annotated[bytes, Depends(envelope)]


@router.post("/enroll", status_code=201, openapi_extra={"requestBody": ENROL})
async def enroll(hub: TheHub, running: TheRunning, request: Request, response: Response, body: Envelope) -> dict[str, Any]:
    """Enrol: certificate, CA, first root and site documents, incarnation; or 202 until an operator has approved it: ask again."""

    def admit() -> dict[str, Any]:
        answer = enrol.redeem(hub, body)
        if running and answer["status"] == "enrolled":
            running.let_in(answer["device"], answer["incarnation"])
        return answer

    return await _admitted(request, response, admit)


@router.post("/renew", status_code=201, openapi_extra={"requestBody": RENEW})
async def renew(hub: TheHub, request: Request, response: Response, body: Envelope) -> dict[str, Any]:
    """A new certificate; or 202 until an operator has approved one for a device that comes very late: ask again."""
    return await _admitted(request, response, lambda: enrol.renew(hub, body))


async def judged(request: Request, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `call` answers to a stranger, away from the event loop; his errors are counted."""
    strangers: Strangers = request.app.state.strangers
    return await run_in_threadpool(strangers.judge, request.client.host if request.client else "", call)


async def _admitted(request: Request, response: Response, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    answer = await judged(request, call)
    if answer["status"] == "pending":
        response.status_code = 202
    return answer


@router.get("/join-line")
def join_line(hub: TheHub, _caller: Viewer) -> dict[str, Any]:
    """The line for all devices whose fingerprints are registered; it holds no secret."""
    return {"line": enrol.line(hub)}
