"""A release folder on disk: which objects its release names, and sending them with the signed release."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeops.parcel.manifest import Manifest
from edgeops.wire.canonical import encode
from edgeops.wire.envelope import split
from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.release import Release

from .. import show
from ..frame import Run
from ..remote.releases import upload


def read_signed(folder: Path) -> tuple[Release, bytes]:
    """The checked release of `folder` and its envelope; raises Misuse("not-signed"), Rejected("stale-signature")."""
    from edgeops.forge.pack import ENVELOPE
    from edgeops.forge.sign import check_folder

    release = check_folder(folder)
    path = folder / ENVELOPE
    if not path.is_file():
        raise Misuse("not-signed", f"{path} does not exist; run `edgeops release sign {folder}` first")
    envelope = path.read_bytes()
    if split(envelope, "release")[0] != encode(release.payload()):
        raise Rejected("stale-signature", f"{path} signs another release than {folder} holds; sign it again")
    return release, envelope


def send(run: Run, folder: Path) -> dict[str, Any]:
    """Upload the signed release in `folder`: it is visible to nobody before all its objects are there."""
    release, envelope = read_signed(folder)
    digests = set(_digests(folder, release))
    sent = {"objects": 0, "bytes": 0, "held": 0}

    def said(size: int) -> None:
        sent["objects"] += 1
        sent["bytes"] += size
        bar.update(task, advance=1)

    def read(digest: str) -> bytes:
        if digest not in digests:
            raise Rejected("unknown-object", f"the manager asks for {digest[:12]}, which the release does not name")
        return _path(folder, digest).read_bytes()

    with show.bar() as bar:
        task = bar.add_task("upload", total=len(digests))
        answer = upload(run.client(), envelope, read, said)
        sent["held"] = len(digests) - sent["objects"]
        bar.update(task, completed=len(digests))
    return {"model": release.model, "version": release.version, "uploaded": sent, "release": answer}


def _digests(folder: Path, release: Release) -> Iterator[str]:
    for variant in release.variants.values():
        manifest = Manifest.decode(_path(folder, variant.manifest.sha256).read_bytes())
        yield variant.manifest.sha256
        yield from (side.sha256 for side in manifest.objects)
        if manifest.inline:
            yield manifest.inline.skeleton.sha256
    yield from (side.sha256 for side in release.sides.values())


def _path(folder: Path, digest: str) -> Path:
    from edgeops.forge.pack import OBJECTS

    return folder / OBJECTS / digest
