"""edgeops context …: which manager the other commands talk to."""

from typing import Annotated

import typer

from . import context, show
from .frame import Run, command

app = typer.Typer(help="List and choose the managers this machine knows.", no_args_is_help=True)


@command(app, "list")
def list_(run: Run) -> None:
    """List the contexts; the current one is marked. Tokens are never shown.

    Example: edgeops context list
    """
    contexts = context.load()
    found = [
        {"name": name, "url": entry.url, "ca": entry.ca, "current": name == contexts.current}
        for name, entry in sorted(contexts.known.items())
    ]
    rows = [("*" if row["current"] else "", row["name"], row["url"], row["ca"]) for row in found]
    run.emit({"contexts": found}, lambda: show.print_table(("", "name", "url", "ca"), rows, "no context yet; run `edgeops init`"))


@command(app, "use")
def use(run: Run, name: Annotated[str, typer.Argument(metavar="NAME", help="A context that `context list` shows.")]) -> None:
    """Make a context the current one.

    Example: edgeops context use berlin
    """
    context.save(context.load().used(name))
    run.emit({"current": name}, f"{name} is current")
