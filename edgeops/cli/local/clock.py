"""edgeops time …: the time that devices are told, and an operator's word for a clock that has jumped."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeops.wire.errors import Misuse

from .. import show
from ..frame import Run, command
from .place import find_folder, open_place

app = typer.Typer(help="Look at the time that devices are told; accept a clock that has jumped.", no_args_is_help=True)
Folder = Annotated[Path | None, typer.Argument(metavar="DIR", help="The manager's folder (default: here, else the context's).")]


@command(app, "show")
def show_(run: Run, folder: Folder = None) -> int:
    """Show what this machine's clock says, the latest time that was signed, and whether they fit. Exit 1 when they do not.

    Example: edgeops time show ./berlin
    """
    data = _look(folder, run.context, int(time.time()), accepting=False)
    said = f"clock {show.when(data['now'])}, latest signed {show.when(data['signed'])}"
    run.emit(data, f"{said}: {data['doubt'] or 'devices are told the time'}")
    return 1 if data["doubt"] else 0


@command(app, "accept")
def accept(
    run: Run, folder: Folder = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: this machine's clock is right.")] = False,
) -> None:
    """Let the manager sign the time of this machine's clock from now on, though it has jumped; `edgeops up` need not be restarted.

    Look at the clock first. A device that was told a time believes no earlier one until a root with a raised epoch is published.

    Example: edgeops time accept ./berlin --yes
    """
    now = int(time.time())
    if not yes and not run.json and not typer.confirm(f"It is {show.when(now)} now. Is that right?", err=True):
        raise Misuse("not-confirmed", "nothing was changed; set the clock, then confirm, or pass --yes")
    data = _look(folder, run.context, now, accepting=True)
    run.emit(data, f"devices are told the time again: {show.when(data['signed'])}")


def _look(folder: Path | None, context: str | None, now: int, accepting: bool) -> dict[str, Any]:
    from edgeops.manager import timekeeper
    from edgeops.manager.hub import open_hub
    from edgeops.store import audit

    place = open_place(find_folder(folder, context) or Path.cwd())
    hub = open_hub(place.layout.root, lambda: now)
    try:
        with hub.store.write() as tx:
            if accepting:
                timekeeper.accept(tx, hub.root, now)
                audit.write(tx, now, "operator", "time-accept", hub.settings.fleet, str(now))
            signed = timekeeper.latest(tx, hub.root)
        return {"now": now, "signed": signed, "epoch": hub.root.epoch, "doubt": timekeeper.doubt(now, signed, signed)}
    finally:
        hub.close()
