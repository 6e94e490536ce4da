"""The files of a release folder that an export takes along: the release, its envelope, and every object it names."""

import shutil
from pathlib import Path

from edgeops.wire.release import Release

from .pack import ENVELOPE, OBJECTS, PAYLOAD, Folder, sides_of


def files_of(folder: Path, release: Release) -> dict[str, Path]:
    """Where each file lies, by its name inside the folder, in the order of names; nothing else in the folder counts."""
    objects = {f"{OBJECTS}/{side.sha256}": folder / OBJECTS / side.sha256 for side in sides_of(Folder(folder), release)}
    return dict(sorted({PAYLOAD: folder / PAYLOAD, ENVELOPE: folder / ENVELOPE, **objects}.items()))


def copy(source: Path, target: Path) -> None:
    """Copy a file, making folders on the way."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
