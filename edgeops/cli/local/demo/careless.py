"""Two bad releases a careless publisher could make: both are put together by hand and signed with the ordinary `release sign`."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeops.wire import canonical
from edgeops.wire.fields import Fields
from edgeops.wire.release import Release

MEGABYTES = 900


def foreign_golden(good: Path, other: Path, out: Path, version: int) -> None:
    """A copy of release folder `good` as `version`, its golden vectors taken from release folder `other` by mistake."""
    shutil.copytree(good, out)
    (out / "release.dsse.json").unlink()
    shutil.copytree(other / "objects", out / "objects", dirs_exist_ok=True)
    release, wrong = _read(good), _read(other)
    golden = next(iter(wrong.variants.values())).golden
    variants = {
        name: replace(variant, golden=golden, size=variant.size - variant.golden.size + golden.size)
        for name, variant in release.variants.items()
    }
    (out / "release.json").write_bytes(canonical.encode(replace(release, version=version, variants=variants).payload()))


def _read(folder: Path) -> Release:
    raw = json.loads((folder / "release.json").read_bytes())
    return Release.parse(Fields.of(raw, str(folder / "release.json")))


def hungry(source: Path, out: Path) -> None:
    """The model in ONNX file `source` with a debugging branch left in: right answers, but it needs far more memory a call.

    The branch blows the first input up to MEGABYTES of float32 and adds zero times its mean to the last output.
    """
    model = onnx.load(str(source))
    graph = model.graph
    entry, last = graph.input[0].name, graph.output[-1]
    inner = f"{last.name}_before_debug"
    for node in graph.node:
        node.output[:] = [inner if name == last.name else name for name in node.output]
        node.input[:] = [inner if name == last.name else name for name in node.input]
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
        helper.make_node("Add", [inner, "debug_nothing"], [last.name]),
    ])  # fmt: skip
    assert last.type.tensor_type.elem_type == TensorProto.FLOAT
    onnx.save(model, str(out))
