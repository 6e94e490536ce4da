"""Data sets in `.npz` files: `x` (n, ...) and, for accuracy, integer labels `y` (n,)."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.keys import sha256

from .runtime import Signature

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Rows x (n, ...), labels y (n,) or None, and the SHA-256 of where they came from; `what` names it in errors."""

    what: str
    x: Array
    y: Array | None
    sha256: str

    def __len__(self) -> int:
        return len(self.x)


def load_dataset(path: Path, what: str) -> Dataset:
    """Read an .npz; `what` is calibration, evaluation or reference. Raises Misuse("no-such-file"), Rejected("bad-data")."""
    if not path.is_file():
        raise Misuse("no-such-file", f"{what} data: {path} is not a file")
    data = path.read_bytes()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as held:
            arrays = {key: held[key] for key in ("x", "y") if key in held}
    except (ValueError, OSError, EOFError, KeyError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise Rejected("bad-data", f"{what} data: {path.name} is not an .npz of plain arrays: {str(error)[:200]}") from None
    if "x" not in arrays:
        raise Rejected("bad-data", f"{what} data: {path.name} has no array 'x'; np.savez({path.name!r}, x=rows, y=labels)")
    return Dataset(what, arrays["x"], arrays.get("y"), sha256(data))


def fit(data: Dataset, signature: Signature, labels: bool) -> Dataset:
    """`data` in the dtype of the model's input and checked against it.

    Raises Rejected: bad-data, wrong-shape, wrong-dtype, no-labels.
    """
    x = data.x
    if not x.ndim or not len(x) or x.dtype.kind not in "fiub":
        raise Rejected("bad-data", f"{data.what} data: x is {x.dtype} {x.shape}, need at least one row of numbers")
    want = signature.shape[1:]
    if x.ndim != len(signature.shape) or any(w > 0 and w != h for w, h in zip(want, x.shape[1:], strict=True)):
        raise Rejected("wrong-shape", f"{data.what} data: rows are {x.shape[1:]}, input {signature.name!r} takes {want}")
    if np.dtype(signature.dtype).kind != "f" and x.dtype.kind == "f":
        raise Rejected("wrong-dtype", f"{data.what} data: x is {x.dtype}, input {signature.name!r} takes {signature.dtype}")
    x = x.astype(signature.dtype, copy=False)
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise Rejected("bad-data", f"{data.what} data: x has values that are not finite in {signature.dtype}")
    return Dataset(data.what, np.ascontiguousarray(x), _labels(data, labels), data.sha256)


def _labels(data: Dataset, needed: bool) -> Array | None:
    y = data.y
    if y is None or not needed:
        if needed:
            raise Rejected("no-labels", f"{data.what} data: no labels 'y'; accuracy cannot be measured without them")
        return None
    if y.shape != (len(data.x),):
        raise Rejected("bad-data", f"{data.what} data: y is {y.shape}, expected ({len(data.x)},)")
    if y.dtype.kind == "f" and np.all(np.isfinite(y)) and np.all(y == np.round(y)):
        y = y.astype(np.int64)
    if y.dtype.kind not in "iub":
        raise Rejected("bad-data", f"{data.what} data: y is {y.dtype}, labels are integers")
    return y.astype(np.int64)


def check_labels(data: Dataset, classes: int | None) -> None:
    """Raise Rejected("one-class" | "bad-labels") where accuracy on these labels would mean nothing.

    `classes`: how many the model tells apart by the largest score; None when it names its labels itself.
    """
    if data.y is None:
        return
    least, most = int(data.y.min()), int(data.y.max())
    if least == most:
        raise Rejected("one-class", f"{data.what} data: all {len(data)} labels are {least}; give rows of every class")
    if classes is not None and not 0 <= least <= most < classes:
        raise Rejected("bad-labels", f"{data.what} data: labels go from {least} to {most}, the model answers 0 to {classes - 1}")


def doubt(data: Dataset, accuracy: float | None) -> str:
    """A warning when the model does no better than one that always gives the same answer; empty otherwise."""
    if data.y is None or accuracy is None:
        return ""
    labels, counts = np.unique(data.y, return_counts=True)
    share = float(counts.max()) / len(data)
    if accuracy > share:
        return ""
    answer = int(labels[counts.argmax()])
    return f"fp32 is right in {accuracy:.4f} of rows, always answering {answer} would be in {share:.4f}: do labels and rows match?"


def overlap(first: Dataset, second: Dataset) -> int:
    """How many rows of `second` stand in `first` too, byte for byte."""
    seen = {row.tobytes() for row in first.x}
    return sum(row.tobytes() in seen for row in second.x)


def check_apart(calib: Dataset, evaluation: Dataset, allowed: float = 0.01) -> str:
    """A warning when some evaluation rows are calibration rows; Rejected("data-overlap") beyond the share `allowed`."""
    same = overlap(calib, evaluation)
    if same > allowed * len(evaluation):
        raise Rejected(
            "data-overlap",
            f"{same} of {len(evaluation)} evaluation rows are calibration rows too; use rows the model was not tuned on",
        )
    return f"{same} of {len(evaluation)} evaluation rows are calibration rows too" if same else ""
