"""edgeops floor …: the least version of a model that devices may still install; raised by the release keys, never lowered."""

from typing import Annotated

import typer

from edgeops.wire import envelope
from edgeops.wire.desired import Floor
from edgeops.wire.errors import Misuse

from .. import show
from ..frame import Run, command
from ..remote.releases import split_name
from . import ceremony
from .ceremony import File, Folder, Keys, Out
from .signers import PassphraseFile

app = typer.Typer(help="The least versions devices may install: raise them once a rollout has finished.", no_args_is_help=True)
Names = Annotated[
    list[str] | None, typer.Argument(metavar="MODEL:VERSION…", help="Least versions from now on; none: sign those there are anew.")
]


@command(app, "raise")
def raise_(
    run: Run, names: Names = None, key: Keys = None, out: Out = None, folder: Folder = None, passphrase_file: PassphraseFile = None,
) -> None:  # fmt: skip
    """Forbid devices to install older versions, for good. Only up to what a finished rollout has brought; it cannot be undone.

    Example: edgeops floor raise digits:3
    """
    from edgeops.manager.site import read_floor

    here = ceremony.ground(run, folder)
    before, wanted = read_floor(here.floor), dict(map(split_name, names or []))
    low = [model for model, least in wanted.items() if least <= before.floors.get(model, 0)]
    if low:
        raise Misuse("floor-lowered", f"the floor of {low[0]} is {before.floors[low[0]]} already; floors only rise")
    made = Floor(here.root.fleet, before.version + 1, {**before.floors, **wanted})
    data = envelope.seal("floor", made.payload(), ceremony.signers_for(here, "release", key or [], passphrase_file))
    if answer := ceremony.hand_on(run, here, "floor", data, out):
        ceremony.emit(run, answer)


@command(app, "sign")
def sign(run: Run, file: File, key: Keys = None, folder: Folder = None, passphrase_file: PassphraseFile = None) -> None:
    """Add your signature to a half-signed floor.

    Example: edgeops floor sign floor.half-signed.json --key bob.key
    """
    ceremony.sign_file(run, "floor", file, key or [], folder, passphrase_file)


@command(app, "publish")
def publish(run: Run, file: File, folder: Folder = None) -> None:
    """Hand a whole floor to the manager, which sends it to every device; needs the role admin.

    Example: edgeops floor publish floor.half-signed.json
    """
    _, _, answer = ceremony.publish_file(run, folder, "floor", file)
    ceremony.emit(run, answer)


@command(app, "show")
def show_(run: Run, folder: Folder = None) -> None:
    """Show the floors as they are, who signed them, and how many devices have them (as the running manager counts).

    Example: edgeops floor show
    """
    from edgeops.manager.site import read_floor

    here = ceremony.ground(run, folder)
    floor = read_floor(here.floor)
    signed = sorted(envelope.signers_of(here.floor, "floor")) if here.floor else []
    data = {"version": floor.version, "floors": dict(floor.floors), "signed_by": signed}
    if here.floor:
        data["have"] = ceremony.have(run, here, "floor")

    def draw() -> None:
        show.print_table(("model", "least version"), sorted(floor.floors.items()), "no floor yet")
        if here.floor:
            print(show.safe(f"floor {floor.version}: {data['have']} have it"))

    run.emit(data, draw)
