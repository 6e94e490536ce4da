"""Two bad releases a careless publisher could make: both are put together by hand and signed with the ordinary `release sign`."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeops.parcel.manifest import Manifest
from edgeops.wire import canonical
from edgeops.wire.fields import Fields
from edgeops.wire.keys import sha256
from edgeops.wire.release import Release, Side, Variant

MEGABYTES = 900


def foreign_golden(good: Path, other: Path, out: Path, version: int) -> None:
    """A copy of release folder `good` as `version`, its golden vectors taken from release folder `other` by mistake."""
    shutil.copytree(good, out)
    (out / "release.dsse.json").unlink()
    shutil.copytree(other / "objects", out / "objects", dirs_exist_ok=True)
    release, wrong = _read(good), _read(other)
    golden = _manifest(out, next(iter(wrong.variants.values()))).golden
    variants = {
        name: _with_manifest(out, variant, replace(_manifest(out, variant), golden=golden))
        for name, variant in release.variants.items()
    }
    (out / "release.json").write_bytes(canonical.encode(replace(release, version=version, variants=variants).payload()))


def _read(folder: Path) -> Release:
    raw = json.loads((folder / "release.json").read_bytes())
    return Release.parse(Fields.of(raw, str(folder / "release.json")))


def hungry(good: Path, scratch: Path, out: Path, version: int) -> None:
    """Release folder `good` as `version`, with a debugging branch left in every variant: right answers, far more memory a call.

    The publisher patches the packed skeleton by hand and repacks: the branch blows the input up to MEGABYTES of float32 and
    adds zero times its mean to the probabilities. `scratch` is where the patched ONNX file goes.
    """
    shutil.copytree(good, out)
    (out / "release.dsse.json").unlink()
    release = _read(good)
    variants = {}
    for name, variant in release.variants.items():
        manifest = _manifest(out, variant)
        model = onnx.load(str(out / "objects" / manifest.skeleton.sha256), load_external_data=False)
        _bloat(model.graph)
        onnx.save(model, str(scratch))
        skeleton = _put(out, scratch.read_bytes())
        variants[name] = _with_manifest(out, variant, replace(manifest, skeleton=skeleton, inline=None))
    (out / "release.json").write_bytes(canonical.encode(replace(release, version=version, variants=variants).payload()))


def _manifest(out: Path, variant: Variant) -> Manifest:
    return Manifest.decode((out / "objects" / variant.manifest.sha256).read_bytes())


def _with_manifest(out: Path, variant: Variant, manifest: Manifest) -> Variant:
    side = _put(out, manifest.encode())
    return replace(variant, manifest=side, size=side.size + manifest.size)


def _put(out: Path, data: bytes) -> Side:
    side = Side(sha256(data), len(data))
    (out / "objects" / side.sha256).write_bytes(data)
    return side


def _bloat(graph: onnx.GraphProto) -> None:
    entry = graph.input[0].name
    output = next(out for out in graph.output if out.name == "probabilities")
    inner = "probabilities_before_debug"
    for node in graph.node:
        for names in (node.output, node.input):
            names[:] = [inner if name == output.name else name for name in names]
    graph.initializer.extend([
        numpy_helper.from_array(np.array([MEGABYTES << 18], dtype=np.int64), "debug_shape"),
        numpy_helper.from_array(np.array([0], dtype=np.float32), "debug_zero"),
    ])  # fmt: skip
    graph.node.extend([
        helper.make_node("ReduceMean", [entry], ["debug_mean"], keepdims=0),
        helper.make_node("Expand", ["debug_mean", "debug_shape"], ["debug_wide"]),
        helper.make_node("Sin", ["debug_wide"], ["debug_sin"]),
        helper.make_node("ReduceMean", ["debug_sin"], ["debug_back"], keepdims=0),
        helper.make_node("Mul", ["debug_back", "debug_zero"], ["debug_nothing"]),
        helper.make_node("Add", [inner, "debug_nothing"], [output.name]),
    ])  # fmt: skip
