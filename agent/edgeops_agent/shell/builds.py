"""From a build to its files: which objects it needs, whether they are whole, and the runnable a worker is given."""

from collections.abc import Iterable
from typing import Protocol

from edgeops.parcel.manifest import Manifest
from edgeops.wire import canonical, envelope
from edgeops.wire.errors import EdgeopsError, Rejected
from edgeops.wire.fields import Fields
from edgeops.wire.keys import sha256
from edgeops.wire.release import Release, Side, Variant

from ..core.record import Record
from ..core.slot import Build
from ..core.update import keep
from .disk import StateFolder
from .runnable import Limits, Runnable


class Kept(Protocol):
    """Where the documents and objects of builds are read from: the agent's folder, or what a straw keeps."""

    def document(self, digest: str) -> bytes:
        """A kept document; raises Rejected("missing-document"), Unfit (disk)."""

    def read(self, digest: str, size: int) -> bytes:
        """An object's bytes, checked against its hash; raises Rejected("missing-object" | "bad-object")."""


def release_of(folder: Kept, digest: str) -> Release:
    """A kept release, believed because its payload has the digest our own record names; raises Rejected."""
    body, _ = envelope.split(folder.document(digest), "release")
    if sha256(body) != digest:
        raise Rejected("bad-document", f"the kept release {digest[:12]} is damaged")
    return Release.parse(Fields.of(canonical.decode(body, "release"), "release"))


def variant_of(folder: Kept, build: Build) -> Variant:
    """The variant a build names; raises Rejected."""
    variants = release_of(folder, build.release).variants
    if build.variant not in variants:
        raise Rejected("no-variant", f"release {build.release[:12]} has no variant {build.variant}")
    return variants[build.variant]


def parts_of(folder: Kept, build: Build) -> tuple[Side, ...]:
    """Every object of a build, the manifest first; raises Rejected when that is missing or damaged."""
    variant = variant_of(folder, build)
    return (variant.manifest, *_manifest_of(folder, variant).objects)


def _manifest_of(folder: Kept, variant: Variant) -> Manifest:
    """What a variant is made of, believed because the bytes have the digest that the release names."""
    return Manifest.decode(folder.read(variant.manifest.sha256, variant.manifest.size))


def check(folder: Kept, build: Build) -> None:
    """Hash every object of a build; raises Rejected("bad-object" | "missing-object")."""
    for side in parts_of(folder, build):
        folder.read(side.sha256, side.size)


def sweep(folder: StateFolder, record: Record, documents: Iterable[str]) -> None:
    """Delete what neither the builds of `record` nor `documents` need."""
    wanted: set[str] = set()
    for slot in record.slots.values():
        for build in keep(slot):
            try:
                wanted |= {side.sha256 for side in parts_of(folder, build)}
            except EdgeopsError:
                return  # a build that cannot be read yet must not lose its objects to the sweep
    folder.sweep(wanted, documents)


def runnable(folder: StateFolder, slot: str, build: Build, device_class: str) -> Runnable:
    """What a worker needs to run a build; its hashes must have been checked."""
    variant = variant_of(folder, build)
    manifest = _manifest_of(folder, variant)
    return Runnable(
        slot=slot, model=build.model, version=build.version, digest=build.release,
        skeleton=folder.objects / manifest.skeleton.sha256, blobs=folder.objects, session_options=variant.options,
        golden=folder.objects / manifest.golden.sha256,
        reference=folder.objects / manifest.reference.sha256 if manifest.reference else None,
        device_class=device_class, limits=Limits(build.memory_bytes, build.load_ms, build.call_ms),
    )  # fmt: skip
