"""The application: all nouns under /api/v1."""

from fastapi import FastAPI

from edgeops import __version__
from edgeops.manager.hub import Hub
from edgeops.manager.serve import Running

from . import (
    audit,
    credential,
    devices,
    documents,
    enroll,
    health,
    login,
    objects,
    observe,
    pending,
    problems,
    releases,
    rollouts,
    tokens,
)
from .door import PREFIX, Door

OPEN = ("/health", "/ca", "/enroll", "/renew", "/login", "/credential", "/credential/challenge")
OPEN_READS = ("/documents/root", "/documents/site", "/documents/floor")  # open to GET only
NOUNS = (health, enroll, credential, pending, devices, objects, releases, documents, rollouts, observe, audit, tokens, login)


def make_app(hub: Hub, running: Running | None = None) -> FastAPI:
    """The application for an open manager; `running` is its broker and loops, where there are any."""
    app = FastAPI(
        title="edgeops manager", version=__version__, openapi_url=f"{PREFIX}/openapi.json", docs_url=None, redoc_url=None,
        redirect_slashes=False, responses={"default": problems.ANSWER},
    )  # fmt: skip
    app.state.hub, app.state.running, app.state.bearers = hub, running, login.bearers(hub)
    app.state.strangers = enroll.Strangers()
    problems.install(app)
    opened, read = ([PREFIX + path for path in paths] for paths in (OPEN, OPEN_READS))
    app.add_middleware(Door, open_paths=tuple(opened), open_reads=tuple(read))
    for noun in NOUNS:
        app.include_router(noun.router, prefix=PREFIX)
    return app
