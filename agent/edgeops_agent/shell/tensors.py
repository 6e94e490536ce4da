"""Tensor types: what ONNX Runtime, the Open Inference Protocol and numpy call the same thing, and their bytes."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeops.wire.errors import Misuse

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]

# ONNX Runtime's name -> (protocol's name, little-endian numpy dtype); strings are BYTES and objects
_TYPES: dict[str, tuple[str, str]] = {
    "tensor(float)": ("FP32", "<f4"),
    "tensor(double)": ("FP64", "<f8"),
    "tensor(float16)": ("FP16", "<f2"),
    "tensor(int64)": ("INT64", "<i8"),
    "tensor(int32)": ("INT32", "<i4"),
    "tensor(int16)": ("INT16", "<i2"),
    "tensor(int8)": ("INT8", "|i1"),
    "tensor(uint64)": ("UINT64", "<u8"),
    "tensor(uint32)": ("UINT32", "<u4"),
    "tensor(uint16)": ("UINT16", "<u2"),
    "tensor(uint8)": ("UINT8", "|u1"),
    "tensor(bool)": ("BOOL", "|b1"),
    "tensor(string)": ("BYTES", "|O"),
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output: `datatype` in the protocol's words, `shape` with -1 for open dimensions, their names in `dims`."""

    name: str
    datatype: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    dims: tuple[str | int, ...]

    def check(self, array: Array) -> None:
        """Raise Misuse("wrong-datatype" | "wrong-shape") unless `array` fits this tensor."""
        if array.dtype != self.dtype:
            raise Misuse(
                "wrong-datatype",
                f"tensor {self.name} is {array.dtype}, the model takes {self.datatype} ({self.dtype}); convert it first",
            )
        fits = len(array.shape) == len(self.shape) and all(
            want in (-1, have) for want, have in zip(self.shape, array.shape, strict=True)
        )
        if not fits:
            raise Misuse(
                "wrong-shape",
                f"tensor {self.name} has shape {list(array.shape)}, the model takes {list(self.shape)} (-1 = any)",
            )


def spec_of(name: str, onnx_type: str, shape: list[Any]) -> TensorSpec | None:
    """The spec of one ONNX value, or None for a type that cannot be served (sequences, maps, bfloat16, complex)."""
    found = _TYPES.get(onnx_type)
    if found is None:
        return None
    dims = tuple(dim if isinstance(dim, int) else str(dim or "") for dim in shape)
    sizes = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in dims)
    return TensorSpec(name, found[0], np.dtype(found[1]), sizes, dims)


def from_bytes(spec: TensorSpec, shape: tuple[int, ...], raw: memoryview) -> Array:
    """A read-only view of little-endian row-major bytes as `shape`; raises Misuse("wrong-size")."""
    if spec.datatype == "BYTES":
        return _strings(spec, shape, bytes(raw))
    size = spec.dtype.itemsize
    for extent in shape:
        size *= extent
    if size != len(raw):
        raise Misuse("wrong-size", f"tensor {spec.name}: {len(raw)} bytes do not fill shape {list(shape)}")
    return np.frombuffer(raw, spec.dtype).reshape(shape)


def from_list(spec: TensorSpec, shape: tuple[int, ...], data: Any) -> Array:
    """JSON data (flat or nested, row-major) as an array of `shape`; raises Misuse("wrong-data")."""
    try:
        if not isinstance(data, list):
            raise TypeError("not a list")
        if spec.datatype == "BYTES":
            return _texts(data).reshape(shape)
        array = np.array(data)
        if array.size and array.dtype.kind not in ("b" if spec.dtype.kind == "b" else "iuf"):
            raise ValueError(f"{array.dtype} data")
        with np.errstate(over="raise", invalid="raise"):
            cast = array.astype(spec.dtype)
        if spec.dtype.kind in "iu" and not np.array_equal(cast, array):
            raise ValueError(f"values that {spec.datatype} cannot hold")
        return cast.reshape(shape)
    except (ValueError, TypeError, OverflowError, FloatingPointError) as error:
        raise Misuse(
            "wrong-data", f"tensor {spec.name}: data do not make {spec.datatype}{list(shape)}: {error}"
        ) from None


def _texts(data: list[Any]) -> Array:
    """Strings only, each of whole characters: the runtime would take others for the model's failure."""
    texts = np.array(data, dtype=object)
    for text in texts.ravel():
        if not isinstance(text, str):
            raise TypeError(f"{type(text).__name__} is no string")
        text.encode()
    return texts


def to_bytes(spec: TensorSpec, array: Array) -> bytes:
    """Little-endian row-major bytes; strings with a 4-byte length each."""
    if spec.datatype == "BYTES":
        encoded = [str(item).encode() for item in array.ravel()]
        return b"".join(struct.pack("<I", len(item)) + item for item in encoded)
    return array.astype(spec.dtype, copy=False).tobytes()


def _strings(spec: TensorSpec, shape: tuple[int, ...], raw: bytes) -> Array:
    items: list[str] = []
    at = 0
    try:
        while at < len(raw):
            (size,) = struct.unpack_from("<I", raw, at)
            if at + 4 + size > len(raw):
                raise ValueError("a string runs past the end")
            items.append(raw[at + 4 : at + 4 + size].decode())
            at += 4 + size
        return np.array(items, dtype=object).reshape(shape)
    except (ValueError, struct.error) as error:
        raise Misuse("wrong-data", f"tensor {spec.name}: malformed BYTES: {error}") from None
