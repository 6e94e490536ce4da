"""edgeops broker …: the broker's configuration, for those who run a mosquitto of their own."""

from pathlib import Path
from typing import Annotated

import typer

from ..frame import Run, command
from .place import find_folder, open_place

app = typer.Typer(help="The rules of the broker, as a configuration of mosquitto.", no_args_is_help=True)
Folder = Annotated[Path | None, typer.Argument(metavar="DIR", help="The manager's folder (default: here, else the context's).")]


@command(app, "config")
def config(
    run: Run, folder: Folder = None, acl: Annotated[bool, typer.Option("--acl", help="The file of access rules instead.")] = False
) -> None:
    """Print the mosquitto configuration that `edgeops up` generates, or the file of access rules it names.

    Whoever runs mosquitto elsewhere copies the files named in it there, and reloads it when pki/ca.crl or broker/passwords change.

    Example: edgeops broker config ./berlin > mosquitto.conf
    """
    from edgeops.broker.acl import mosquitto_acl
    from edgeops.broker.mosquitto import mosquitto_config
    from edgeops.manager.serve import broker_plan

    place = open_place(find_folder(folder, run.context) or Path.cwd())
    rules = mosquitto_acl()
    plan = broker_plan(place.layout, place.settings)
    text = mosquitto_config(plan, plan.port, plan.folder / "mosquitto.acl")
    run.emit({"config": text, "acl": rules}, (rules if acl else text).rstrip())
