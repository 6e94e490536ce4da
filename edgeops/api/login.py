"""GET /login and GET /whoami: how people log in here, and who the manager takes a caller for."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter

from edgeops.manager.hub import Hub
from edgeops.wire.errors import Misuse

from .auth import TheHub, Viewer

if TYPE_CHECKING:
    # Needs the extra `oidc`.
    from .oidc import Bearers

router = APIRouter(tags=["login"])


@router.get("/login")
def how(hub: TheHub) -> dict[str, Any]:
    """How to log in with OpenID Connect: issuer, client and audience; 404 where only API tokens are accepted."""
    login = hub.settings.oidc
    if not login.issuer:
        raise Misuse("no-login", "nobody logs in here but with an API token; set oidc in edgeops.toml to change that")
    return {"issuer": login.issuer, "client": login.clients[0], "audience": login.audience}


@router.get("/whoami")
def whoami(caller: Viewer) -> dict[str, Any]:
    """The name and the role of the caller, as the audit log has them."""
    return {"name": caller.name, "role": caller.role}


def bearers(hub: Hub | None) -> "Bearers | None":
    """Those who may come with tokens of an issuer, if any may; raises Misuse("oidc-missing") where the extra is."""
    if hub is None or not hub.settings.oidc.issuer:
        return None
    if find_spec("jwt") is None:
        raise Misuse("oidc-missing", "oidc in edgeops.toml needs a package more: run `pip install 'edgeops[oidc]'`")
    from .issuer import Issuer
    from .oidc import Bearers

    return Bearers(hub.settings.oidc, Issuer(hub.settings.oidc.issuer))
