"""/documents: the roots, the site and the floor every device must have. They prove themselves, so reading them is open to all."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from edgeops.manager import documents
from edgeops.manager.hub import Hub
from edgeops.wire import canonical
from edgeops.wire.messages import Bundle

from .auth import Admin, TheHub, TheRunning, Viewer

router = APIRouter(prefix="/documents", tags=["documents"])
After = Annotated[int, Query(ge=0, le=canonical.LIMIT, description="Only what is newer than this version.")]
ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"description": "A bundle of envelopes, as on `dn/doc`.", "content": {"application/json": {}}}
}


class NewDocument(BaseModel, extra="forbid"):
    """A signed envelope, as its JSON object or as text."""

    envelope: dict[str, Any] | str


@router.get("/root", response_class=Response, responses=ANSWER)
def roots(hub: TheHub, after: After = 0) -> Response:
    """The chain of roots after a version, oldest first: how a device that nobody's clock or key reaches any more finds back."""
    return _bundle(hub, "root", after)


@router.get("/site", response_class=Response, responses=ANSWER)
def site(hub: TheHub, after: After = 0) -> Response:
    """The newest site document, if it is newer than a version."""
    return _bundle(hub, "site", after)


@router.get("/floor", response_class=Response, responses=ANSWER)
def floor(hub: TheHub, after: After = 0) -> Response:
    """The newest floor document, if there is one newer than a version."""
    return _bundle(hub, "floor", after)


@router.get("")
def status(hub: TheHub, _caller: Viewer) -> dict[str, Any]:
    """Current versions, epoch and floors; what must be signed anew; how many devices have said that they have all."""
    return documents.status(hub)


@router.post("/{kind}", status_code=201)
def publish(
    hub: TheHub, running: TheRunning, caller: Admin, kind: Literal["root", "site", "floor"], body: NewDocument
) -> dict[str, Any]:
    """Publish the next root, site or floor: verified by the rules devices go by, then sent to all of them."""
    text = body.envelope
    sealed = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else canonical.encode(text)
    answer = documents.publish(hub, caller.name, kind, sealed)
    if running and kind == "site":
        running.renew_tls()
    return answer


def _bundle(hub: Hub, kind: str, after: int) -> Response:
    return Response(Bundle(tuple(documents.after(hub, kind, after))).encode(), media_type="application/json")
