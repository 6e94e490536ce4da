"""The application: all nouns under /api/v1."""

from fastapi import FastAPI

from edgeops import __version__
from edgeops.manager.hub import Hub
from edgeops.manager.serve import Running

from . import devices, enroll, health, objects, observe, problems, releases, rollouts, tokens
from .door import Door

PREFIX = "/api/v1"
OPEN = ("/health", "/ca", "/enroll", "/renew")
NOUNS = (health, enroll, devices, objects, releases, rollouts, observe, tokens)


def make_app(hub: Hub, running: Running | None = None) -> FastAPI:
    """The application for an open manager; `running` is its broker and loops, where there are any."""
    app = FastAPI(
        title="edgeops manager", version=__version__, openapi_url=f"{PREFIX}/openapi.json", docs_url=None, redoc_url=None,
        redirect_slashes=False, responses={"default": problems.ANSWER},
    )  # fmt: skip
    app.state.hub, app.state.running = hub, running
    problems.install(app)
    app.add_middleware(Door, open_paths=tuple(PREFIX + path for path in OPEN))
    for noun in NOUNS:
        app.include_router(noun.router, prefix=PREFIX)
    return app
