"""Loading a model source: any safe `.onnx` file, or a scikit-learn estimator in a `.skops` file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.keys import sha256

from . import estimator

MAX_BYTES = 1900 << 20
MAX_NODES = 20_000
DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
QUANT_OPS = frozenset({
    "DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulNBits",
    "QAttention", "QEmbedLayerNormalization", "QGemm", "QLinearAdd", "QLinearAveragePool", "QLinearConcat", "QLinearConv",
    "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul", "QLinearReduceMean", "QLinearSigmoid", "QLinearSoftmax",
})  # fmt: skip
LOOPS = frozenset({"Loop", "Scan"})


@dataclass(frozen=True, slots=True)
class Limits:
    """What a source may be: bytes, nodes in all graphs together, whether Loop and Scan are allowed, skops types to trust."""

    size: int = MAX_BYTES
    nodes: int = MAX_NODES
    loops: bool = False
    trusted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A model that passed the static gate. `predict` are the labels of the estimator it was converted from, if any."""

    model: onnx.ModelProto
    sha256: str
    kind: str
    predict: estimator.Predict | None = None


def load_source(path: Path, limits: Limits | None = None) -> Source:
    """Read `path`, by its suffix `.onnx` or `.skops`.

    Raises Rejected: not-onnx, not-skops, external-data, custom-op, too-many-nodes, loop, too-large, untrusted-type,
    not-convertible; Misuse: no-such-file, unknown-source, missing-extra.
    """
    limits = limits or Limits()
    if not path.is_file():
        raise Misuse("no-such-file", f"{path} is not a file")
    size = path.stat().st_size
    if size > limits.size:
        raise Rejected("too-large", f"{path.name} has {size} bytes, {limits.size} are allowed")
    suffix = path.suffix.lower()
    if suffix == ".skops":
        data = path.read_bytes()
        model, predict = estimator.convert(data, path.name, limits.size, limits.trusted)
        check_model(model, path.name, limits)
        return Source(model, sha256(data), "scikit-learn", predict)
    if suffix in {".pkl", ".pickle", ".joblib"}:
        raise Misuse("unknown-source", f"{path.name}: pickles run code when opened; save it with skops.io.dump(model, 'm.skops')")
    if suffix not in {".onnx", ".ort"}:
        raise Misuse("unknown-source", f"{path.name}: give an .onnx or a .skops file")
    data = path.read_bytes()
    return Source(parse_onnx(data, path.name, limits), sha256(data), "onnx")


def parse_onnx(data: bytes, name: str, limits: Limits) -> onnx.ModelProto:
    """The model in `data` after the static gate; errors as for `load_source`."""
    if data[4:8] == b"ORTM" or name.endswith(".ort"):
        raise Rejected("not-onnx", f"{name} is in ORT format; give the .onnx file it was made from")
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except (DecodeError, ValueError):
        raise Rejected("not-onnx", f"{name} is not an ONNX file or is cut short") from None
    check_model(model, name, limits)
    return model


def check_model(model: onnx.ModelProto, name: str, limits: Limits) -> None:
    """The static gate: nothing is run or loaded. Errors as for `load_source`."""
    if not model.graph.node or not model.graph.output or model.ir_version < 3:
        raise Rejected("not-onnx", f"{name} holds no ONNX graph")
    if model.functions:
        raise Rejected("custom-op", f"{name} has local functions; inline them first (onnx.inliner.inline_local_functions)")
    for count, node in enumerate(all_nodes(model.graph), 1):
        if count > limits.nodes:
            raise Rejected("too-many-nodes", f"{name} has more than {limits.nodes} nodes; simplify it or export larger operators")
        _check_node(node, name, limits)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in all_tensors(model.graph)):
        raise Rejected("external-data", f"{name} refers to other files; save it as one file (onnx.save(onnx.load(path), new_path))")
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # the checker raises several kinds from C++
        raise Rejected("not-onnx", f"{name} is not a valid ONNX model: {str(error).splitlines()[0][:300]}") from None


def _check_node(node: onnx.NodeProto, name: str, limits: Limits) -> None:
    if node.domain not in DOMAINS and not (node.domain == "com.microsoft" and node.op_type in QUANT_OPS):
        what = f"{node.domain}.{node.op_type}"
        raise Rejected("custom-op", f"{name} uses {what}, which devices do not have; export with standard operators")
    if node.op_type in LOOPS and node.domain in DOMAINS and not limits.loops:
        raise Rejected("loop", f"{name} uses {node.op_type}, whose run time has no bound; unroll it or allow loops explicitly")


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """`graph` and all graphs in the attributes of its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from all_graphs(inner)


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, also of inner graphs."""
    for inner in all_graphs(graph):
        yield from inner.node


def all_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor: initializers, sparse ones and attributes, also of inner graphs."""
    for inner in all_graphs(graph):
        yield from inner.initializer
        for sparse in inner.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for attribute in (item for node in inner.node for item in node.attribute):
            yield from ([attribute.t] if attribute.HasField("t") else []) + list(attribute.tensors)
            single = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            for sparse in single + list(attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def weights(model: onnx.ModelProto) -> dict[str, npt.NDArray[Any]]:
    """Float32 weights of Conv, MatMul and Gemm by initializer name: what quantization can make smaller."""
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    names = {
        node.input[1] for node in model.graph.node
        if node.op_type in {"Conv", "MatMul", "Gemm"} and node.domain in DOMAINS and len(node.input) > 1
    }  # fmt: skip
    found = {name: onnx.numpy_helper.to_array(held[name]) for name in sorted(names & held.keys())}
    return {name: array for name, array in found.items() if array.dtype == np.float32 and array.ndim >= 2}
