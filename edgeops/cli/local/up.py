"""edgeops up: the manager in the foreground."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..frame import Run
from ..show import line
from ..signals import loading
from .place import find_folder, open_place

if TYPE_CHECKING:
    from edgeops.api.serve import Serving

LOG = "%(asctime)s %(levelname)s %(name)s: %(message)s"
Folder = Annotated[Path | None, typer.Argument(metavar="DIR", help="The manager's folder (default: here, else the context's).")]


class Plain(logging.Formatter):
    """One line for a message, whatever words of devices are in it; below it a traceback, with nothing a terminal would obey."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line."""
        return line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """The traceback, indented, so that none of its lines passes for one of the log."""
        return "\n".join(f"  {line(one)}" for one in super().formatException(ei).split("\n"))


def up(
    run: Run,
    folder: Folder = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more, on stderr.")] = False,
) -> None:
    """Run the manager (HTTPS API and MQTT broker) until Ctrl-C or SIGTERM; prints one line once both answer.

    Example: edgeops up ./berlin
    """
    with loading():
        from edgeops.api.serve import serve

    place = open_place(find_folder(folder, run.context) or Path.cwd())
    handler = logging.StreamHandler()
    handler.setFormatter(Plain(LOG))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])
    # Checkpoints of the audit log are evidence once they are elsewhere, and a journal often is.
    logging.getLogger("edgeops.audit").setLevel(logging.INFO)
    run.note(f"starting the manager of fleet {place.settings.fleet} in {place.layout.root} …")
    serve(place.layout.root, lambda serving: _ready(run, serving))
    run.note("stopped")


def facts(serving: "Serving") -> dict[str, Any]:
    """Where the manager answers: API, broker and which broker it is."""
    from edgeops.manager.site import url

    settings, broker = serving.running.hub.settings, serving.running.broker
    mqtt = url("mqtts", settings.addresses[0], broker.port)
    return {"ready": True, "fleet": settings.fleet, "url": serving.url, "mqtt": mqtt, "broker": broker.kind}


def _ready(run: Run, serving: "Serving") -> None:
    data = facts(serving)
    run.emit(data, f"ready: API {data['url']}  broker {data['mqtt']} ({data['broker']})  stop with Ctrl-C")
