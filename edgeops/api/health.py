"""GET /health and GET /ca: open to all, since a device needs both before it has anything."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from edgeops import __version__

from .auth import TheHub, TheRunning

router = APIRouter(tags=["health"])


@router.get("/health")
def health(hub: TheHub, running: TheRunning) -> dict[str, Any]:
    """Whether broker, link and loops work, and the version."""
    state = running.health() if running else {"status": "ok", "broker": None, "acl_denied": 0}
    return {**state, "version": __version__, "fleet": hub.settings.fleet}


@router.get("/ca", response_class=Response)
def ca(hub: TheHub) -> Response:
    """The CA certificate, PEM; believed only by its digest, which an enrolment token carries."""
    return Response(hub.ca.certificate_pem, media_type="application/x-pem-file")
