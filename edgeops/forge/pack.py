"""The release folder: `release.json` (the unsigned payload, canonical JSON) and `objects/<sha256>`."""

import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import onnx

from edgeops.parcel.manifest import Manifest
from edgeops.wire import canonical
from edgeops.wire.errors import Misuse
from edgeops.wire.golden import GoldenSet
from edgeops.wire.keys import sha256
from edgeops.wire.release import Release, Side, Tensor, Variant

from .canonical import Packed
from .runtime import Signature

PAYLOAD, ENVELOPE, OBJECTS = "release.json", "release.dsse.json", "objects"
TOOLS = ("edgeops", "onnx", "onnxruntime", "numpy", "protobuf", "scikit-learn", "skl2onnx", "skops")
# Least ONNX Runtime for an opset of the default domain (onnxruntime docs/reference/compatibility).
RUNTIMES = ((18, "1.14"), (19, "1.16"), (20, "1.17"), (21, "1.18"), (22, "1.21"), (23, "1.23"))
NEWEST = "1.32"


class Folder:
    """Objects by digest, under one root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.objects = root / OBJECTS
        self.objects.mkdir(parents=True, exist_ok=True)

    def put(self, data: bytes) -> Side:
        """Keep `data` and name it."""
        side = Side(sha256(data), len(data))
        path = self.objects / side.sha256
        if not path.exists():
            path.write_bytes(data)
        return side

    def get(self, side: Side) -> bytes:
        """The bytes of `side`."""
        return (self.objects / side.sha256).read_bytes()

    def put_all(self, packed: Packed) -> Path:
        """Keep every object of a variant; returns the path of the skeleton, which can be loaded from there."""
        for body in packed.objects.values():
            self.put(body)
        return self.objects / packed.skeleton.sha256


def make_variant(
    folder: Folder, packed: Packed, golden: GoldenSet, reference: bytes | None, classes: tuple[str, ...], options: Mapping[str, str]
) -> Variant:
    """Write all of a variant into `folder` and describe it."""
    folder.put_all(packed)
    manifest = packed.manifest(folder.put(golden.encode()), folder.put(reference) if reference is not None else None)
    side = folder.put(manifest.encode())
    return Variant(classes, dict(options), side, side.size + manifest.size)


def sides_of(folder: Folder, release: Release) -> list[Side]:
    """Every object a release folder must hold."""
    found = list(release.sides.values())
    for variant in release.variants.values():
        manifest = Manifest.decode(folder.get(variant.manifest))
        found += [variant.manifest, *manifest.objects]
        found += [manifest.inline.skeleton] if manifest.inline else []
    return found


def write_release(folder: Folder, release: Release) -> None:
    """Write the payload."""
    (folder.root / PAYLOAD).write_bytes(canonical.encode(release.payload()))


def fresh_folder(path: Path) -> Path:
    """`path`, which must not exist or be empty; raises Misuse("folder-in-use")."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise Misuse("folder-in-use", f"{path} is not empty; give a new folder for the release")
    return path


def tensors(signatures: tuple[Signature, ...]) -> tuple[Tensor, ...]:
    """As the release names them."""
    return tuple(Tensor(item.name, item.dtype, item.shape) for item in signatures)


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the default operator set."""
    return max((int(item.version) for item in model.opset_import if item.domain in ("", "ai.onnx")), default=1)


def least_runtime(opset: int) -> str:
    """The oldest ONNX Runtime that knows the opset."""
    return next((runtime for most, runtime in RUNTIMES if opset <= most), NEWEST)


def tools() -> dict[str, str]:
    """Versions of everything that had a hand in the bytes."""
    found = {"python": platform.python_version()}
    for name in TOOLS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
