"""Variants of a canonical fp32 model: `int8` (static QDQ) and `store_i8` (weights stored small, folded back at load).

`store_i8` keeps weights as per-channel int8 and restores them with Cast and Mul, which ONNX Runtime folds at load: fp32
arithmetic on every processor, a quarter of the bytes (research/02 section 4).
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from edgeops.wire.errors import Rejected

from .canonical import canonicalise
from .source import weights

OP_TYPES = ("Conv", "MatMul", "Gemm")
SCHEME = "static QDQ U8S8 per channel, reduced range, MinMax, Conv MatMul Gemm"
MAX_CALIBRATION = 512
MIN_STORED = 256
COMPUTE, STORAGE, PLAIN = "compute", "storage", "plain"


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """A variant before it is judged. `kind`: plain (fp32), compute (other arithmetic) or storage (fp32 arithmetic)."""

    name: str
    kind: str
    model: onnx.ModelProto
    scheme: str = "as converted"
    options: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ("any",)


class _Rows(CalibrationDataReader):  # type: ignore[misc]
    """Feeds calibration rows in the batch size of the model."""

    def __init__(self, name: str, x: npt.NDArray[Any], batch: int) -> None:
        size = batch or 64
        whole = len(x) // size * size if batch else len(x)
        self._feeds = iter([{name: x[at : at + size]} for at in range(0, whole, size)])

    def get_next(self) -> Any:
        """The next feed, None at the end."""
        return next(self._feeds, None)


def quantizable(model: onnx.ModelProto) -> bool:
    """Whether there is any Conv, MatMul or Gemm with constant float weights; trees have none."""
    return bool(weights(model))


def int8(model: onnx.ModelProto, x: npt.NDArray[Any], batch: int) -> Draft:
    """Static QDQ, U8S8, per channel, reduced range (no saturation without VNNI), MinMax over rows x (n, ...).

    Raises Rejected("quantize-failed").
    """
    with tempfile.TemporaryDirectory(prefix="edgeops-forge-") as folder, _quiet():
        target = Path(folder) / "int8.onnx"
        source = onnx.ModelProto()
        source.CopyFrom(model)
        try:
            quantize_static(
                source, str(target), _Rows(model.graph.input[0].name, x[:MAX_CALIBRATION], batch), quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(OP_TYPES), per_channel=True, reduce_range=True, activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod.MinMax,
            )  # fmt: skip
            return Draft("int8", COMPUTE, canonicalise(onnx.load(str(target))), SCHEME)
        except Exception as error:  # the quantizer raises many kinds
            raise Rejected("quantize-failed", f"int8: ONNX Runtime cannot quantize the model: {str(error)[:200]}") from None


def store_i8(model: onnx.ModelProto) -> Draft:
    """Weights as symmetric int8 per output channel; raises Rejected("nothing-to-store") when no weight is large enough."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    small = {name: array for name, array in weights(model).items() if array.size >= MIN_STORED}
    if not small:
        raise Rejected("nothing-to-store", f"store_i8: no Conv, MatMul or Gemm weight has {MIN_STORED} numbers or more")
    kept = [tensor for tensor in result.graph.initializer if tensor.name not in small]
    nodes = list(result.graph.node)
    restore = []
    for name, array in small.items():
        codes, scale = _round(array, _channel_axis(model, name, array.ndim))
        kept += [numpy_helper.from_array(codes, f"{name}_i8"), numpy_helper.from_array(scale, f"{name}_scale")]
        restore += [
            helper.make_node("Cast", [f"{name}_i8"], [f"{name}_cast"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}_cast", f"{name}_scale"], [name]),
        ]
    del result.graph.initializer[:], result.graph.node[:]
    result.graph.initializer.extend(kept)
    result.graph.node.extend(restore + nodes)
    return Draft("store_i8", STORAGE, canonicalise(result), "symmetric int8 weights per channel, Cast and Mul")


def _channel_axis(model: onnx.ModelProto, name: str, rank: int) -> int:
    node = next(node for node in model.graph.node if len(node.input) > 1 and node.input[1] == name and node.op_type in OP_TYPES)
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if any(item.name == "transB" and item.i for item in node.attribute) else 1
    return rank - 1


def _round(array: npt.NDArray[Any], axis: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    others = tuple(i for i in range(array.ndim) if i != axis)
    scale = np.abs(array).max(axis=others, keepdims=True) / 127.0
    scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
    return np.clip(np.rint(array / scale), -127, 127).astype(np.int8), scale


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantizer's advice, which names its own API, from our users."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
