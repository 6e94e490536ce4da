"""Which manager's folder a local command means, and the keys and names it finds there."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from edgeops.manager.layout import Layout
from edgeops.manager.settings import Settings, load
from edgeops.wire.errors import Misuse
from edgeops.wire.keys import Signer
from edgeops.wire.rotation import read_root

from .. import context
from .signers import NOTATION, open_signers

RELEASE_KEY = "EDGEOPS_RELEASE_KEY"
Dir = Annotated[
    Path | None, typer.Argument(metavar="DIR", help="The manager's folder (default: here, else the context's).")
]


@dataclass(frozen=True, slots=True)
class Place:
    """A manager's folder with its settings read."""

    layout: Layout
    settings: Settings


def open_place(folder: Path) -> Place:
    """The manager in `folder`; raises Misuse("no-manager" | …) when there is none or its settings are wrong."""
    layout = Layout(folder.resolve())
    return Place(layout, load(layout.settings))


def find_folder(given: Path | None, name: str | None) -> Path | None:
    """The folder given, else this one if it holds a manager, else the one beside the CA of the context; None when there is none."""
    if given is not None:
        return given
    if Layout(Path.cwd()).settings.exists():
        return Path.cwd()
    contexts = context.load()
    if not contexts.known:
        return None
    folder = Path(contexts.pick(name).ca).parent.parent
    return folder if Layout(folder).settings.exists() else None


def must_find(given: Path | None, name: str | None) -> Place:
    """The manager's folder as `find_folder` finds it; raises Misuse("no-manager") where there is none."""
    return open_place(find_folder(given, name) or Path())


def release_signers(keys: list[str], folder: Path | None, passphrase_file: Path | None = None) -> list[Signer]:
    """The keys given, else $EDGEOPS_RELEASE_KEY, else the release keys in the manager's folder; raises Misuse."""
    if not keys and (chosen := os.environ.get(RELEASE_KEY)):
        keys = [chosen]
    if keys:
        return open_signers(keys, passphrase_file)
    if folder is None:
        raise Misuse("no-keys", f"no release key is at hand; give --key ({NOTATION}) or set {RELEASE_KEY}")
    layout = Layout(folder)
    known = read_root(layout.newest("root").read_bytes()).roles["release"].keys
    paths = layout.keys("release") or [layout.key("release")]
    found = open_signers([str(path) for path in paths], passphrase_file)
    return [one for one in found if one.id in known] or found


def fleet_name(given: str | None, folder: Path | None) -> str:
    """The fleet given, else the one in the manager's folder; raises Misuse("no-fleet")."""
    if given:
        return given
    if folder is None:
        raise Misuse("no-fleet", "the release must name its fleet; give --fleet NAME, or --folder with the manager's folder")
    return open_place(folder).settings.fleet
