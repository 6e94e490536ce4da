"""Signing a release folder, forged or put together by hand: all is checked that can be without running the model."""

from collections.abc import Sequence
from pathlib import Path

from edgeops.parcel.assembly import assemble_inline, check_object
from edgeops.parcel.manifest import Manifest
from edgeops.sketch.reference import ReferenceProfile
from edgeops.wire import canonical
from edgeops.wire.envelope import countersign, digest_of, seal
from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.fields import Fields
from edgeops.wire.golden import GoldenSet
from edgeops.wire.keys import Signer
from edgeops.wire.release import Release, Side, Variant, shortest

from .pack import ENVELOPE, OBJECTS, PAYLOAD


def sign_release(folder: Path, signers: Sequence[Signer], replace: bool = False) -> bytes:
    """Check `folder`, sign its payload, write `release.dsse.json` and return the envelope's bytes.

    Signatures of this very payload that are there stay, so that several holders sign one after the other, unless `replace`.
    Raises Misuse: no-release, no-keys; Rejected: as `check_folder`.
    """
    if not signers:
        raise Misuse("no-keys", "give at least one release key to sign with")
    release = check_folder(folder)
    envelope, target = seal("release", release.payload(), signers), folder / ENVELOPE
    if target.is_file() and not replace:
        before = target.read_bytes()
        if digest_of(before, "release") == digest_of(envelope, "release"):
            envelope = countersign(before, "release", signers)
    fresh = target.with_suffix(".new")
    fresh.write_bytes(envelope)
    fresh.replace(target)
    return envelope


def check_folder(folder: Path) -> Release:
    """The release in `folder`, with every object it names present and true to its digest.

    Raises Misuse("no-release"); Rejected: malformed, not-canonical, missing-object, bad-object, golden-malformed,
    golden-no-tolerance, reference-malformed, wrong-size, unknown-field.
    """
    path = folder / PAYLOAD
    if not path.is_file():
        raise Misuse("no-release", f"{path} does not exist; a release folder holds {PAYLOAD} and {OBJECTS}/")
    value = canonical.decode(path.read_bytes(), PAYLOAD)
    release = Release.parse(Fields.of(value, "release"))
    if release.payload() != shortest(value):
        raise Rejected("unknown-field", f"{PAYLOAD} holds fields that this version of edgeops does not know and would not sign")
    for name, variant in release.variants.items():
        _check_variant(folder, name, variant)
    for side in release.sides.values():
        _read(folder, side)
    return release


def _check_variant(folder: Path, name: str, variant: Variant) -> None:
    manifest = Manifest.decode(_read(folder, variant.manifest))
    sizes = {side.sha256: side for side in manifest.objects}
    skeleton = _read(folder, manifest.skeleton)
    for side in manifest.tensors:
        _read(folder, side)
    if manifest.inline:
        assemble_inline(manifest.inline, _read(folder, manifest.inline.skeleton), lambda digest: _read(folder, sizes[digest]))
    golden = GoldenSet.decode(_read(folder, manifest.golden))
    for device_class in variant.classes:
        golden.tolerance_for(device_class)
    if manifest.reference:
        ReferenceProfile.from_bytes(_read(folder, manifest.reference))
    size = variant.manifest.size + manifest.size
    if variant.size != size or not skeleton:
        raise Rejected("wrong-size", f"variant {name}: says {variant.size} bytes, its objects have {size}; correct {PAYLOAD}")


def _read(folder: Path, side: Side) -> bytes:
    path = folder / OBJECTS / side.sha256
    if not path.is_file():
        raise Rejected("missing-object", f"{path} does not exist; the release names it")
    data = path.read_bytes()
    check_object(side.sha256, side.size, data)
    return data
