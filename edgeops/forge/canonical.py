"""One canonical form of an ONNX model and its two layouts: skeleton with tensors as objects, and one inline file.

All weights become raw_data, metadata goes; protobuf is serialised once, here, and never again on a device.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import helper, numpy_helper

from edgeops.parcel.manifest import MAX_OBJECTS, Inline, Manifest, Segment
from edgeops.parcel.walker import tensor_ranges
from edgeops.wire.errors import Rejected
from edgeops.wire.keys import sha256
from edgeops.wire.release import MAX_OBJECT, Side

from .runtime import PENULTIMATE
from .source import all_graphs, all_tensors

THRESHOLD = 4096
MAX_PENULTIMATE = 4096


@dataclass(frozen=True, slots=True)
class Packed:
    """The model of one variant in both layouts, and its objects by digest (skeleton, tensors, inline skeleton)."""

    skeleton: Side
    tensors: tuple[Side, ...]
    inline: Inline
    objects: Mapping[str, bytes]

    @property
    def size(self) -> int:
        """Bytes of the external layout."""
        return self.skeleton.size + sum(side.size for side in self.tensors)

    def manifest(self, golden: Side, reference: Side | None) -> Manifest:
        """The manifest, once there is something to prove the model by."""
        return Manifest(self.skeleton, self.tensors, golden, reference, self.inline)


def canonicalise(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with all tensors in raw_data, constants as initializers, no metadata, doc strings, value info or unused weights."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _lift_constants(result.graph)
    for tensor in all_tensors(result.graph):
        _to_raw(tensor)
    _strip(result)
    used = {name for graph in all_graphs(result.graph) for node in graph.node for name in node.input}
    used |= {item.name for item in result.graph.output}
    kept = [tensor for tensor in result.graph.initializer if tensor.name in used]
    del result.graph.initializer[:]
    result.graph.initializer.extend(sorted(kept, key=lambda tensor: tensor.name))
    _fix_weights(result)
    imports = {item.domain if item.domain != "ai.onnx" else "": item.version for item in result.opset_import}
    del result.opset_import[:]
    result.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in sorted(imports.items()))
    return result


def _lift_constants(graph: onnx.GraphProto) -> None:
    """Make top-level Constant tensors initializers, so that they are found, shared and hashed like any weight."""
    kept = []
    for node in graph.node:
        if node.op_type == "Constant" and len(node.attribute) == 1 and node.attribute[0].name == "value":
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _fix_weights(model: onnx.ModelProto) -> None:
    """Old exporters list weights as inputs with a default, which nobody may fold or quantize; make them constants."""
    held = {tensor.name for tensor in model.graph.initializer}
    real = [item for item in model.graph.input if item.name not in held]
    if len(real) < len(model.graph.input):
        del model.graph.input[:]
        model.graph.input.extend(real)
        model.ir_version = max(4, model.ir_version)


def _to_raw(tensor: onnx.TensorProto) -> None:
    if tensor.data_type != onnx.TensorProto.STRING and not tensor.HasField("raw_data"):
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), name))
    tensor.ClearField("doc_string")
    tensor.ClearField("metadata_props")


def _strip(model: onnx.ModelProto) -> None:
    for field in ("doc_string", "metadata_props", "producer_name", "producer_version", "model_version", "domain"):
        model.ClearField(field)
    for graph in all_graphs(model.graph):
        for field in ("doc_string", "metadata_props", "value_info", "quantization_annotation"):
            graph.ClearField(field)
        for node in graph.node:
            node.ClearField("doc_string")
            node.ClearField("metadata_props")
            for attribute in node.attribute:
                attribute.ClearField("doc_string")
        for item in (*graph.input, *graph.output):
            item.ClearField("doc_string")
            item.ClearField("metadata_props")
    model.graph.name = "model"


def expose_penultimate(model: onnx.ModelProto, scores: str) -> onnx.ModelProto:
    """`model` with the tensor that enters the last MatMul or Gemm before output `scores` as output `edgeops_penultimate`.

    Returned unchanged when there is no such float32 tensor of known width, or when it is the input itself.
    """
    made = {name: node for node in model.graph.node for name in node.output}
    name, steps = scores, 0
    while name in made and made[name].op_type not in {"MatMul", "Gemm"} and steps < 32:
        name, steps = (made[name].input[0] if made[name].input else ""), steps + 1
    if name not in made or made[name].op_type not in {"MatMul", "Gemm"} or steps >= 32:
        return model
    inner = made[name].input[0]
    if inner not in made or any(item.name == PENULTIMATE for item in model.graph.output):
        return model
    width = _width(model, inner)
    if not 0 < width <= MAX_PENULTIMATE:
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.graph.node.append(helper.make_node("Identity", [inner], [PENULTIMATE], name=PENULTIMATE))
    batch = model.graph.input[0].type.tensor_type.shape.dim[0]
    first = batch.dim_value if batch.HasField("dim_value") else "N"
    result.graph.output.append(helper.make_tensor_value_info(PENULTIMATE, onnx.TensorProto.FLOAT, [first, width]))
    return result


def _width(model: onnx.ModelProto, name: str) -> int:
    """Columns of the float32 matrix `name`, 0 when shape inference does not know or it is something else."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except Exception:  # inference is best effort
        return 0
    for item in inferred.graph.value_info:
        kind = item.type.tensor_type
        if item.name == name and kind.elem_type == onnx.TensorProto.FLOAT and len(kind.shape.dim) == 2:
            return int(kind.shape.dim[1].dim_value)
    return 0


def pack(model: onnx.ModelProto, threshold: int = THRESHOLD) -> Packed:
    """Both layouts of a canonical model; tensors of at least `threshold` bytes become objects. Raises Rejected("too-large")."""
    try:
        whole: bytes = model.SerializeToString(deterministic=True)
    except ValueError as error:
        raise Rejected("too-large", f"the model cannot be written as one file: {error}") from None
    ranges = [part for part in tensor_ranges(whole) if part.end - part.start >= threshold]
    ranges = sorted(sorted(ranges, key=lambda part: part.start - part.end)[: MAX_OBJECTS - 1], key=lambda part: part.start)
    tensors = {part.name: whole[part.start : part.end] for part in ranges}
    bodies = {sha256(body): body for body in tensors.values()}
    skeleton = _skeleton(model, {name: (sha256(body), len(body)) for name, body in tensors.items()})
    parts, inner, at = [], [], 0
    for part in ranges:
        inner.append(whole[at : part.start])
        parts += [Segment(part.start - at), Segment(part.end - part.start, sha256(whole[part.start : part.end]))]
        at = part.end
    inner.append(whole[at:])
    parts.append(Segment(len(whole) - at))
    rest = b"".join(inner)
    inline = Inline(_side(whole), _side(rest), tuple(part for part in parts if part.length))
    objects = bodies | {sha256(skeleton): skeleton, sha256(rest): rest}
    if max(map(len, objects.values())) > MAX_OBJECT:
        raise Rejected("too-large", f"a tensor has more than {MAX_OBJECT >> 20} MiB, which is all that travels as one object")
    return Packed(_side(skeleton), tuple(Side(digest, len(body)) for digest, body in sorted(bodies.items())), inline, objects)


def _skeleton(model: onnx.ModelProto, objects: Mapping[str, tuple[str, int]]) -> bytes:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for tensor in result.graph.initializer:
        if tensor.name in objects:
            digest, size = objects[tensor.name]
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", digest), ("offset", "0"), ("length", str(size))):
                tensor.external_data.add(key=key, value=value)
    data: bytes = result.SerializeToString(deterministic=True)
    return data


def _side(data: bytes) -> Side:
    return Side(sha256(data), len(data))
