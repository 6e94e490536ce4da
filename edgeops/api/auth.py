"""Who may: the role of the caller, whom the door (`edgeops.api.door`) has identified."""

from collections.abc import Callable
from typing import Annotated, cast

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from edgeops.manager.hub import Hub
from edgeops.manager.serve import Running
from edgeops.manager.tokens import Caller
from edgeops.wire.errors import Misuse

BEARER = HTTPBearer(auto_error=False, description="An API token; `edgeops init` makes the first.")
# For the OpenAPI document only.
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]


def hub_of(request: Request) -> Hub:
    """The open manager of this application."""
    return cast(Hub, request.app.state.hub)


def running_of(request: Request) -> Running | None:
    """The broker and loops next to this application; None where only the API runs."""
    return cast(Running | None, request.app.state.running)


def needs(role: str) -> Callable[..., Caller]:
    """A dependency: the caller, who must have at least `role`."""

    def caller(request: Request, _credentials: Credentials) -> Caller:
        found = cast(Caller, request.state.caller)
        if not found.may(role):
            raise Misuse("role", f"token {found.name} is {found.role}, this needs {role}; ask an admin for another token")
        return found

    return caller


TheHub = Annotated[Hub, Depends(hub_of)]
TheRunning = Annotated[Running | None, Depends(running_of)]
# The scopes say the role in the OpenAPI document.
Viewer = Annotated[Caller, Security(needs("viewer"), scopes=["viewer"])]
Operator = Annotated[Caller, Security(needs("operator"), scopes=["operator"])]
Admin = Annotated[Caller, Security(needs("admin"), scopes=["admin"])]
