"""Which manager's folder a local command means, and the keys and names it finds there."""

import os
from dataclasses import dataclass
from pathlib import Path

from edgeops.manager.layout import Layout
from edgeops.manager.settings import Settings, load
from edgeops.wire.errors import Misuse
from edgeops.wire.keys import Signer

from .. import context

RELEASE_KEY = "EDGEOPS_RELEASE_KEY"


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


def release_signers(keys: list[Path], folder: Path | None) -> list[Signer]:
    """The keys given, else $EDGEOPS_RELEASE_KEY, else the release key in the manager's folder; raises Misuse."""
    if not keys and (chosen := os.environ.get(RELEASE_KEY)):
        keys = [Path(chosen)]
    if not keys and folder is not None:
        keys = [Layout(folder).key("release")]
    if not keys:
        raise Misuse("no-keys", f"no release key is at hand; give --key FILE or set {RELEASE_KEY}")
    # The forge, the store and ONNX Runtime take a second to load: commands import them only when they run.
    from edgeops.manager.setup import load_signer

    return [load_signer(path) for path in keys]


def fleet_name(given: str | None, folder: Path | None) -> str:
    """The fleet given, else the one in the manager's folder; raises Misuse("no-fleet")."""
    if given:
        return given
    if folder is None:
        raise Misuse("no-fleet", "the release must name its fleet; give --fleet NAME, or --folder with the manager's folder")
    return open_place(folder).settings.fleet
