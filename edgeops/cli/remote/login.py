"""edgeops login: a person's own account instead of an API token."""

from pathlib import Path
from typing import Annotated

import typer

from edgeops.wire.errors import Misuse

from .. import context
from ..client import Client
from ..device_grant import Issuer, logged_in
from ..frame import Run
from ..session import way_of
from ..show import safe


def login(
    run: Run,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A context to log in with; without one the current.")] = None,
    url: Annotated[str | None, typer.Option(metavar="URL", help="Make the context: where the manager answers.")] = None,
    ca: Annotated[Path | None, typer.Option(metavar="FILE", help="Make the context: the manager's CA certificate.")] = None,
) -> None:
    """Log in at the manager's OpenID Connect issuer: open the address shown in any browser, on any machine, and enter the code.

    Example: edgeops login berlin --url https://manager.lan:8443 --ca ca.crt
    """
    given = _context(run, name, url, ca)
    way = way_of(given)
    issuer = Issuer(way)
    try:
        asked = issuer.ask()
        run.note(f"Open {safe(asked.where)}\nand enter the code {safe(asked.code)}")
        entered = logged_in(given, way, issuer.wait(asked))
    finally:
        issuer.close()
    client = Client(entered)
    try:
        who = client.get("/whoami")
    finally:
        client.close()
    stored = context.save(context.load().renewed(entered))
    data = {"context": entered.name, "name": who.get("name"), "role": who.get("role"), "expires": entered.expires or None}
    run.emit(data, lambda: print(safe(f"You are {who.get('name')}, {who.get('role')}; context {entered.name!r} is in {stored}")))


def _context(run: Run, name: str | None, url: str | None, ca: Path | None) -> context.Context:
    if url is None and ca is None:
        return context.load().pick(name or run.context)
    if name is None or url is None or ca is None:
        raise Misuse("login-where", "a new context needs all of NAME, --url and --ca")
    context.check_name(name)
    return context.Context(name, url, str(ca.resolve()), "")
