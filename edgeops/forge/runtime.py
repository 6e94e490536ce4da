"""ONNX Runtime as the forge uses it: sessions over the external layout exactly as a device loads it, and runs over many rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from edgeops.wire.errors import Rejected

Array = npt.NDArray[Any]
FOLDER_OPTION = "session.model_external_initializers_file_folder_path"
PENULTIMATE = "edgeops_penultimate"
BATCH = 256
LEVELS = {
    "disable": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
DTYPES = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(int64)": "int64", "tensor(int32)": "int32",
    "tensor(int8)": "int8", "tensor(uint8)": "uint8", "tensor(bool)": "bool",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Signature:
    """An input or output as ONNX Runtime sees it; -1 is a free dimension."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def open_session(
    model: Path | bytes, objects: Path | None = None, options: Mapping[str, str] | None = None, level: str = "all", threads: int = 1
) -> ort.InferenceSession:
    """A CPU session; `objects` is the folder of tensor objects by digest. Raises Rejected("does-not-load")."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4
    settings.graph_optimization_level = LEVELS[level]
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for name, value in (options or {}).items():
        settings.add_session_config_entry(name, value)
    if objects is not None:
        settings.add_session_config_entry(FOLDER_OPTION, str(objects))
    try:
        return ort.InferenceSession(model if isinstance(model, bytes) else str(model), settings, ["CPUExecutionProvider"])
    except Exception as error:  # the binding raises one class per status code
        raise Rejected("does-not-load", f"ONNX Runtime {ort.__version__} refuses the model: {str(error)[:300]}") from None


def inputs_of(session: ort.InferenceSession) -> tuple[Signature, ...]:
    """Inputs in order; raises Rejected("tensor-type")."""
    return tuple(_signature(item) for item in session.get_inputs())


def outputs_of(session: ort.InferenceSession) -> tuple[Signature, ...]:
    """Outputs in order; raises Rejected("tensor-type")."""
    return tuple(_signature(item) for item in session.get_outputs())


def _signature(item: Any) -> Signature:
    if item.type not in DTYPES:
        hint = "; export with options={id(model): {'zipmap': False}}, or give the .skops file" if "map(" in item.type else ""
        raise Rejected("tensor-type", f"{item.name} is a {item.type}; inputs and outputs must be {', '.join(DTYPES)}{hint}")
    return Signature(item.name, DTYPES[item.type], tuple(size if isinstance(size, int) and size > 0 else -1 for size in item.shape))


def batch_of(signature: Signature) -> int:
    """Rows per run: the model's own batch if it is fixed."""
    return signature.shape[0] if signature.shape and signature.shape[0] > 0 else 0


def run_rows(session: ort.InferenceSession, x: Array, batch: int = BATCH) -> dict[str, Array]:
    """All outputs for rows x (n, ...), in batches; raises Rejected("does-not-run", "no-batch-axis")."""
    signature = inputs_of(session)[0]
    size = batch_of(signature) or batch
    names = [item.name for item in session.get_outputs()]
    parts: list[list[Array]] = []
    for at in range(0, len(x), size):
        rows = x[at : at + size]
        short = size - len(rows) if batch_of(signature) else 0
        feed = np.concatenate([rows, np.repeat(rows[-1:], short, axis=0)]) if short else rows
        try:
            got = session.run(names, {signature.name: feed})
        except Exception as error:  # the binding raises one class per status code
            raise Rejected("does-not-run", f"the model fails on {rows.shape} rows: {str(error)[:300]}") from None
        if any(not isinstance(part, np.ndarray) or part.ndim < 1 or len(part) != len(feed) for part in got):
            shapes = [np.shape(part) for part in got]
            raise Rejected("no-batch-axis", f"every output must have one row per input row; these are {shapes}")
        parts.append([part[: len(rows)] for part in got])
    return {name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(names)}


def scores_name(outputs: Mapping[str, Array]) -> str:
    """Which output is judged, and looked at for drift: the first float one with several columns, else the first float one.

    Raises Rejected("no-float-output").
    """
    floats = [name for name, array in outputs.items() if array.dtype.kind == "f" and name != PENULTIMATE]
    wide = [name for name in floats if outputs[name].ndim == 2 and outputs[name].shape[1] > 1]
    if not floats:
        raise Rejected("no-float-output", "the model has no float output; expose its scores as an output")
    return (wide or floats)[0]


def labels_from(outputs: Mapping[str, Array]) -> Array | None:
    """Predicted labels (n,): the integer output of rank 1, else the arg max of the scores; None for a regression."""
    for array in outputs.values():
        if array.dtype.kind == "i" and array.ndim == 1:
            return array.astype(np.int64)
    scores = outputs[scores_name(outputs)]
    if scores.ndim == 2 and scores.shape[1] > 1:
        return np.asarray(scores.argmax(axis=1), dtype=np.int64)
    return None


def classes_of(outputs: Mapping[str, Array]) -> int | None:
    """How many classes the arg max of the scores can name; None when the model gives labels of its own, or none."""
    if any(array.dtype.kind == "i" and array.ndim == 1 for array in outputs.values()):
        return None
    scores = outputs[scores_name(outputs)]
    return int(scores.shape[1]) if scores.ndim == 2 and scores.shape[1] > 1 else None
