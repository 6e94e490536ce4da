"""edgeops site …: where devices find the manager, as the signed site document tells them."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from .. import context
from ..frame import Run, command
from .place import find_folder, open_place

app = typer.Typer(help="Say anew where devices find the manager.", no_args_is_help=True)
Folder = Annotated[Path | None, typer.Argument(metavar="DIR", help="The manager's folder (default: here, else the context's).")]


@command(app, "sign")
def sign(
    run: Run,
    folder: Folder = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="The site key (default: the folder's).")] = None,
) -> None:
    """Sign a new site document after addresses or ports in edgeops.toml have changed; then restart `edgeops up`.

    Devices that enrol from then on use it; those enrolled before keep to the old endpoints until they enrol again.

    Example: edgeops site sign ./berlin
    """
    from edgeops.manager.setup import load_signer
    from edgeops.manager.site import renew_site, url

    place = open_place(find_folder(folder, run.context) or Path.cwd())
    site = renew_site(place.layout, place.settings, load_signer(key or place.layout.key("site")), int(time.time()))
    _move_contexts(place.layout.certificate("ca"), url("https", place.settings.addresses[0], place.settings.https_port))
    data = {"version": site.version, "mqtt": list(site.mqtt), "https": list(site.https)}
    run.emit(data, f"site document {site.version} sends devices to {', '.join((*site.mqtt, *site.https))}")


def _move_contexts(ca: Path, url: str) -> None:
    """This machine's contexts of the manager follow it."""
    contexts = context.load()
    moved = {name: replace(held, url=url) if Path(held.ca) == ca else held for name, held in contexts.known.items()}
    if moved != contexts.known:
        context.save(replace(contexts, known=moved))
