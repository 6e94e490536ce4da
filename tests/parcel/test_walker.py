"""The walker against the real onnx package, and against bytes that are no model at all."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgeops.parcel.walker import TensorRange, tensor_ranges
from edgeops.wire.errors import Rejected

DTYPES = (np.float32, np.float16, np.int8, np.int64, np.uint8, np.float64)
shapes = st.lists(st.integers(0, 5), max_size=3)
arrays = st.lists(st.tuples(st.sampled_from(DTYPES), shapes), max_size=6)


def model_of(wanted: list[tuple[type, list[int]]], typed: bool = False) -> onnx.ModelProto:
    """A model with one initializer per (dtype, shape), the last one without raw_data if `typed`."""
    tensors = [
        numpy_helper.from_array(np.arange(int(np.prod(shape))).reshape(shape).astype(dtype), f"w{index}")
        for index, (dtype, shape) in enumerate(wanted)
    ]
    if typed:
        tensors.append(helper.make_tensor("typed", TensorProto.FLOAT, [2], [1.0, 2.0]))
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [], tensors)
    return helper.make_model(graph, producer_name="t", doc_string="d" * 200)


def truth(model: onnx.ModelProto) -> list[tuple[str, bytes]]:
    """What the onnx package says: names and raw bytes, in order."""
    return [(tensor.name, tensor.raw_data) for tensor in model.graph.initializer if tensor.raw_data]


def found(data: bytes) -> list[tuple[str, bytes]]:
    """What the walker says."""
    return [(part.name, data[part.start : part.end]) for part in tensor_ranges(data)]


def varint(value: int) -> bytes:
    """A protobuf varint."""
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def field(number: int, body: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(body)) + body


def odd(tensors: list[tuple[str, bytes]]) -> bytes:
    """A model as other writers may make it: fields in reverse order, unknown fields of every wire type in between."""
    numbers = varint(900 << 3) + varint(2**63) + varint(901 << 3 | 1) + b"8 bytes!" + varint(902 << 3 | 5) + b"four"
    unknown = numbers + field(903, b"?")
    bodies = [unknown + field(9, raw) + unknown + field(8, name.encode()) + varint(2 << 3) + b"\x01" for name, raw in tensors]
    graph = field(2, b"g") + b"".join(field(5, body) + unknown for body in bodies)
    return unknown + field(7, graph) + unknown + varint(1 << 3) + b"\x0a"


@given(arrays, st.booleans())
def test_ranges_are_what_onnx_reads(wanted: list[tuple[type, list[int]]], typed: bool) -> None:
    """On generated models the ranges cut out exactly the raw_data of the onnx package, in file order."""
    model = model_of(wanted, typed)
    assert found(model.SerializeToString()) == truth(model)


@given(st.lists(st.tuples(st.from_regex(r"[a-zé]{0,9}", fullmatch=True), st.binary(min_size=1, max_size=300)), max_size=4))
def test_reversed_and_unknown_fields(tensors: list[tuple[str, bytes]]) -> None:
    """Fields in reverse order and unknown fields change nothing, and onnx agrees."""
    data = odd(tensors)
    assert found(data) == tensors == truth(onnx.load_from_string(data))


def test_the_last_raw_data_wins() -> None:
    """Where a tensor carries raw_data twice the last one counts, as it does for protobuf, also when it is empty."""
    for last in (b"last", b""):
        data = field(7, field(5, field(8, b"w") + field(9, b"first") + field(9, last)))
        assert found(data) == truth(onnx.load_from_string(data))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x00", b"\x3a", b"\x3a\x05", b"\xff" * 11, field(7, b"") * 2, field(1, b"x"), field(7, b"\x2b"),
        field(7, b"\x2a\x7f"), varint(7 << 3 | 3) + varint(7 << 3 | 4), varint(7 << 3 | 6),
        field(7, b"") + varint(9 << 3 | 1) + b"short", field(7, b"\x02\x00"),
    ],
)  # fmt: skip
def test_what_is_no_model_is_rejected(data: bytes) -> None:
    """No graph, two graphs, cut fields, groups, wrong wire types and broken numbers are Rejected("not-onnx")."""
    with pytest.raises(Rejected) as caught:
        tensor_ranges(data)
    assert caught.value.reason == "not-onnx"


WHOLE = model_of([(np.float32, [3, 2]), (np.int8, [7])], typed=True).SerializeToString()


def safe(data: bytes) -> tuple[TensorRange, ...]:
    """The ranges, or none where Rejected."""
    try:
        return tensor_ranges(data)
    except Rejected as error:
        assert error.reason == "not-onnx"
        return ()


def test_every_cut_is_rejected_or_read() -> None:
    """A model cut anywhere never yields a range beyond its end, and mostly is Rejected."""
    refused = 0
    for at in range(len(WHOLE)):
        ranges = safe(WHOLE[:at])
        refused += not ranges
        assert all(part.end <= at for part in ranges)
    assert refused > len(WHOLE) // 2


@given(st.binary(max_size=200), st.integers(0, len(WHOLE) - 1), st.binary(max_size=9))
def test_fuzzed_bytes_raise_only_rejected(data: bytes, at: int, patch: bytes) -> None:
    """Arbitrary bytes, and a real model with some bytes overwritten, raise nothing but Rejected and stay inside the file."""
    for bad in (data, WHOLE[:at] + patch + WHOLE[at + len(patch) :], WHOLE[:at] + patch + WHOLE[at:]):
        assert all(0 <= part.start < part.end <= len(bad) for part in safe(bad))
