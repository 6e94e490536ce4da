"""GET /health and GET /ca: open to all, since a device needs both before it has anything; the details are not."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from edgeops import __version__

from .auth import TheHub, TheRunning, Viewer

router = APIRouter(tags=["health"])


@router.get("/health")
def health(hub: TheHub, running: TheRunning) -> dict[str, Any]:
    """Whether the manager is well: `status` is ok or failing; `version` and `fleet`. Strangers learn no more."""
    status = running.health()["status"] if running else "ok"
    return {"status": status, "version": __version__, "fleet": hub.settings.fleet}


@router.get("/health/details")
def details(hub: TheHub, running: TheRunning, _caller: Viewer) -> dict[str, Any]:
    """The same `status`, `version` and `fleet`, and why: the broker, what devices sent, who is shut out.

    `broker` says kind, host, port, whether it is alive and whether our link to it is connected; `acl_denied` counts what it
    refused. `messages` counts what devices sent, by noun, and what was refused, as `refused.REASON`; `waiting` are yet to be read,
    `dropped` were lost because too many waited. `shut_out` names devices the broker refuses for a while because they flood.
    """
    state = running.health() if running else {"status": "ok", "broker": None, "acl_denied": 0}
    return {**state, "version": __version__, "fleet": hub.settings.fleet}


@router.get("/ca", response_class=Response)
def ca(hub: TheHub) -> Response:
    """The CA certificate, PEM; believed only by its digest, which an enrolment token carries."""
    return Response(hub.ca.certificate_pem, media_type="application/x-pem-file")
