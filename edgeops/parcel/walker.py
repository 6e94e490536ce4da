"""Find tensor bytes in an ONNX file by walking the protobuf wire format; neither onnx nor protobuf is needed.

Field numbers are those of onnx.proto: ModelProto.graph = 7, GraphProto.initializer = 5, TensorProto.raw_data = 9
(protobuf wire format: protobuf.dev/programming-guides/encoding).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from edgeops.wire.errors import Rejected

GRAPH, INITIALIZER, RAW_DATA, NAME = 7, 5, 9, 8
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class TensorRange:
    """The raw bytes of one initializer: data[start:end]."""

    name: str
    start: int
    end: int


def tensor_ranges(data: bytes) -> tuple[TensorRange, ...]:
    """Ranges of all top-level initializers that carry raw_data, in file order; raises Rejected("not-onnx")."""
    found: list[TensorRange] = []
    graphs = [(start, end) for number, start, end in _messages(data, 0, len(data)) if number == GRAPH]
    if len(graphs) != 1:
        raise Rejected("not-onnx", f"expected one graph in the file, found {len(graphs)}")
    for number, start, end in _messages(data, *graphs[0]):
        if number == INITIALIZER:
            found.extend(_raw_data(data, start, end))
    return tuple(found)


def _raw_data(data: bytes, start: int, end: int) -> list[TensorRange]:
    name, begin_raw, end_raw = "", 0, 0
    for number, begin, stop in _messages(data, start, end):
        if number == NAME:
            name = data[begin:stop].decode("utf-8", "replace")
        elif number == RAW_DATA:
            begin_raw, end_raw = begin, stop  # protobuf: the last one wins
    return [TensorRange(name, begin_raw, end_raw)] if end_raw > begin_raw else []


def _messages(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(field number, start, end) of every length-delimited field in data[at:end]."""
    while at < end:
        tag, at = _varint(data, at, end)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise Rejected("not-onnx", f"field number 0 at byte {at}")
        if kind == VARINT:
            _, at = _varint(data, at, end)
        elif kind in (FIXED64, FIXED32):
            at += 8 if kind == FIXED64 else 4
        elif kind == LENGTH:
            size, at = _varint(data, at, end)
            if at + size > end:
                raise Rejected("not-onnx", f"a field at byte {at} reaches beyond its parent")
            yield number, at, at + size
            at += size
        else:
            raise Rejected("not-onnx", f"wire type {kind} at byte {at}")
    if at != end:
        raise Rejected("not-onnx", "the file is cut short")


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise Rejected("not-onnx", f"a broken number at byte {at}")
