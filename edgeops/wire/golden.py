"""Golden vectors: inputs, expected outputs and the signed tolerance within which a device must reproduce them.

Bytes are CBOR: {"v": 1, "cases": [{"in": {name: [dtype, shape, bytes]}, "out": ...}],
"tolerances": {class: [abs_nano, rel_ppm, margin_ppm, measured]}}.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cbor2
import numpy as np
import numpy.typing as npt

from .device_class import ANY
from .errors import Rejected

Tensors = Mapping[str, npt.NDArray[Any]]
DTYPES = ("float32", "float64", "int64", "int32", "int8", "uint8", "bool")
MAX_CASES = 256
MAX_TENSOR_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What may differ: |got-want| <= abs + rel*|want|, and the same top-1 wherever the expected margin exceeds `margin`.

    Units: `absolute_nano` 1e-9, `relative_ppm` and `margin_ppm` 1e-6. `measured` is False for a class nobody has measured.
    """

    absolute_nano: int = 1000
    relative_ppm: int = 1000
    margin_ppm: int = 0
    measured: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class GoldenCase:
    """One run: named inputs and the outputs they must give."""

    inputs: Tensors
    outputs: Tensors


@dataclass(frozen=True, slots=True, eq=False)
class GoldenSet:
    """The cases of one variant and the tolerance of each device class (key `any` is the wider guess for the others)."""

    cases: tuple[GoldenCase, ...]
    tolerances: Mapping[str, Tolerance]

    def tolerance_for(self, device_class: str) -> Tolerance:
        """The tolerance of `device_class`, else the one of `any`; raises Rejected when there is neither."""
        found = self.tolerances.get(device_class) or self.tolerances.get(ANY)
        if found is None:
            raise Rejected("golden-no-tolerance", f"the golden set has no tolerance for {device_class} and none for any")
        return found

    def encode(self) -> bytes:
        """CBOR bytes of the set (canonical CBOR)."""
        cases = [{"in": _pack(case.inputs), "out": _pack(case.outputs)} for case in self.cases]
        tolerances = {
            name: [t.absolute_nano, t.relative_ppm, t.margin_ppm, t.measured] for name, t in self.tolerances.items()
        }
        return cbor2.dumps({"v": 1, "cases": cases, "tolerances": tolerances}, canonical=True)

    @staticmethod
    def decode(data: bytes) -> "GoldenSet":
        """Read a set; raises Rejected("golden-malformed")."""
        try:
            raw = cbor2.loads(data)
            if raw["v"] != 1 or not 0 < len(raw["cases"]) <= MAX_CASES:
                raise ValueError("version or number of cases")
            cases = tuple(GoldenCase(_unpack(case["in"]), _unpack(case["out"])) for case in raw["cases"])
            if not all(case.outputs for case in cases):
                raise ValueError("a case without outputs cannot fail")
            tolerances = {str(name): _tolerance(values) for name, values in raw["tolerances"].items()}
        except Exception as error:  # cbor2 raises many kinds; none of them may escape
            raise Rejected("golden-malformed", f"golden vectors cannot be read: {error}") from None
        return GoldenSet(cases, tolerances)


def compare(expected: Tensors, got: Tensors, tolerance: Tolerance) -> tuple[str, ...]:
    """Every way in which `got` fails `expected`; an empty tuple means it passes."""
    problems: list[str] = []
    for name, want in expected.items():
        have = got.get(name)
        if have is None:
            problems.append(f"output {name} is missing")
        elif have.shape != want.shape:
            problems.append(f"output {name} has shape {have.shape}, expected {want.shape}")
        elif want.dtype.kind != "f":
            differing = np.asarray(have != want)
            if np.any(differing) and not _explained(differing, expected, tolerance):
                problems.append(f"output {name} differs in {np.count_nonzero(differing)} of {want.size} elements")
        else:
            problems.extend(_compare_floats(name, want, have, tolerance))
    return tuple(problems)


def _explained(differing: npt.NDArray[Any], expected: Tensors, tolerance: Tolerance) -> bool:
    """Whether every differing label may be a near tie: some float output has a top-2 margin within the tolerance in its row."""
    for want in expected.values():
        if want.dtype.kind == "f" and want.ndim and want.shape[-1] > 1:
            near = (_margins(want) <= tolerance.margin_ppm / 1e6).reshape(-1)
            if near.size == differing.size and bool(np.all(near[differing.reshape(-1)])):
                return True
    return False


def _margins(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    top = np.sort(values.astype(np.float64), axis=-1)
    margins: npt.NDArray[Any] = top[..., -1] - top[..., -2]
    return margins


def _compare_floats(name: str, want: npt.NDArray[Any], have: npt.NDArray[Any], tolerance: Tolerance) -> list[str]:
    if not np.all(np.isfinite(have)) or not np.all(np.isfinite(want)):
        return [f"output {name} is not finite"]
    allowed = tolerance.absolute_nano / 1e9 + np.abs(want.astype(np.float64)) * tolerance.relative_ppm / 1e6
    error = np.abs(have.astype(np.float64) - want.astype(np.float64))
    problems = []
    if np.any(error > allowed):
        problems.append(f"output {name} is off by up to {float(np.max(error)):.3g}")
    if want.ndim and want.shape[-1] > 1:
        clear = _margins(want) > tolerance.margin_ppm / 1e6
        if np.any(clear & (np.argmax(want, axis=-1) != np.argmax(have, axis=-1))):
            problems.append(f"output {name} has another top-1")
    return problems


def _pack(tensors: Tensors) -> dict[str, list[Any]]:
    return {name: [str(array.dtype), list(array.shape), np.ascontiguousarray(array).tobytes()] for name, array in tensors.items()}


def _unpack(raw: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    result = {}
    for name, (dtype, shape, data) in raw.items():
        if dtype not in DTYPES or len(data) > MAX_TENSOR_BYTES:
            raise ValueError(f"tensor {name}: dtype {dtype} or size {len(data)}")
        result[str(name)] = np.frombuffer(data, dtype=np.dtype(dtype)).reshape([int(size) for size in shape])
    return result


def _tolerance(values: Any) -> Tolerance:
    absolute, relative, margin, measured = values
    if not all(isinstance(value, int) and value >= 0 for value in (absolute, relative, margin)):
        raise ValueError("tolerances are integers >= 0")
    return Tolerance(absolute, relative, margin, bool(measured))
