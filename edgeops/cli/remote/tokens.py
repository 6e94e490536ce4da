"""edgeops token …: who may use the manager's API, and in which role."""

from typing import Annotated

import typer

from .. import show
from ..client import at, items
from ..frame import Run, command

app = typer.Typer(help="Make, list and revoke API tokens: viewer < operator < admin.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Whose token: 1 to 64 of A-Z a-z 0-9 _ -; stands in the audit log.")]


@command(app, "new")
def new(
    run: Run,
    name: Name,
    role: Annotated[str, typer.Option(help="viewer looks, operator registers and rolls out, admin makes tokens.")] = "viewer",
    ttl: Annotated[int, typer.Option(min=0, metavar="SECONDS", help="How long it works, from 60; 0 is for ever.")] = 0,
) -> None:
    """Make an API token and print it (it is shown only here); for admins.

    Example: edgeops token new anna --role viewer
    """
    data = run.client().post("/tokens", {"name": name, "role": role, "ttl_s": ttl or None})
    run.note(f"Give this to {name} (it is shown only once); they store it with `edgeops context add`:\n")
    run.emit(data, data["token"])


@command(app, "list")
def list_(run: Run) -> None:
    """List the API tokens with their roles; their text is kept by nobody; for admins.

    Example: edgeops token list
    """
    found = items(run.client().get("/tokens"), "tokens")
    rows = [
        (row.get("name"), row.get("role"), *(show.when(row.get(name)) for name in ("created", "expires", "last_used")))
        for row in found
    ]
    run.emit({"tokens": found}, lambda: show.print_table(("name", "role", "created", "expires", "last used"), rows))


@command(app, "revoke")
def revoke(run: Run, name: Name) -> None:
    """Make an API token worthless at once; the last one of an admin stays; for admins.

    Example: edgeops token revoke anna
    """
    data = run.client().delete(at("tokens", name))
    run.emit(data, f"revoked the token {name}")
