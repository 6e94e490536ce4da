"""edgeops context …: which manager the other commands talk to."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from . import context, show
from .client import Client
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


@command(app, "add")
def add(
    run: Run,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A new name, or one whose manager or token changes.")],
    url: Annotated[str, typer.Option(metavar="URL", help="Where the manager answers, e.g. https://manager.lan:8443.")],
    ca: Annotated[Path, typer.Option(metavar="FILE", help="The manager's CA certificate, the only one trusted for it.")],
) -> None:
    """Store a manager and an API token, read from standard input, as a context, after asking the manager whether they work.

    Example: edgeops context add berlin --url https://manager.lan:8443 --ca ca.crt < token.txt
    """
    token = typer.prompt("API token", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    given = context.Context(name, url, str(ca.resolve()), token.strip())
    contexts = context.load().added(given)
    client = Client(given)
    try:
        client.get("/models")
    finally:
        client.close()
    stored = context.save(contexts)
    run.emit({"context": name, "url": url, "ca": given.ca}, f"context {name!r} is stored in {stored} and current")


@command(app, "use")
def use(run: Run, name: Annotated[str, typer.Argument(metavar="NAME", help="A context that `context list` shows.")]) -> None:
    """Make a context the current one.

    Example: edgeops context use berlin
    """
    context.save(context.load().used(name))
    run.emit({"current": name}, f"{name} is current")
