"""The good model, and everything that must not be able to hurt a device: crafted ONNX files first, native operators after them.

All have the input x [n, 4] and most the right answer to the golden vector; what is `later` goes wrong when x is positive, which
the golden vector is not and the clients' input is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeops.wire.golden import GoldenCase, GoldenSet, Tolerance

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
WEIGHTS = np.random.default_rng(7).normal(size=(4, 3)).astype(np.float32)
X = np.ones((1, 4), np.float32)
MANY = 1 << 34
LINK = "5" * 64
"""The name of an object that the scene turns into a link out of the folder."""

value = helper.make_tensor_value_info


@dataclass(frozen=True)
class Crafted:
    """What goes into a release: the ONNX file's bytes and the golden vectors."""

    file: bytes
    golden: GoldenSet


@dataclass(frozen=True)
class Hostile:
    """One hostile model. `phase` is where it strikes: before it takes calls (`load`), while it is tried (`trial`), or later.

    `reasons` are the right ones for its end, `says` stands in the detail; `limit_s` is how long it may go on by the limits of the
    order. `native` ones need a compiler.
    """

    id: str
    phase: str
    make: Callable[[], Crafted]
    reasons: tuple[str, ...]
    says: str = ""
    limit_s: float = 2.0
    native: bool = False
    trial: Mapping[str, int] = field(default_factory=dict)


def golden(outputs: Mapping[str, Any] | None = None, x: Any = -X) -> GoldenSet:
    """One case: the good model's answer, or these outputs."""
    return GoldenSet((GoldenCase({"x": x}, outputs or {"y": x @ WEIGHTS}),), {"any": Tolerance(1000, 1000, 0)})


def model(nodes: list[Any], constants: Mapping[str, Any], outputs: Any = None, domains: tuple[str, ...] = ()) -> onnx.ModelProto:
    """x -> MatMul -> y0, then `nodes`, which make y."""
    held = [numpy_helper.from_array(np.asarray(array), name) for name, array in {"W": WEIGHTS, **constants}.items()]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "W"], ["y0"]), *nodes], "g", [value("x", FLOAT, ["n", 4])],
        outputs or [value("y", FLOAT, ["n", 3])], held,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def crafted(made: onnx.ModelProto, vectors: GoldenSet | None = None) -> Crafted:
    """As it goes into a release."""
    return Crafted(made.SerializeToString(), vectors or golden())


def good() -> Crafted:
    """y = x @ W."""
    return crafted(model([helper.make_node("Identity", ["y0"], ["y"])], {}))


node = helper.make_node
POSITIVE = [
    node("ReduceMax", ["x"], ["top"], keepdims=0), node("Greater", ["top", "zero"], ["positive"]),
    node("Cast", ["positive"], ["bit"], to=INT64),
]  # fmt: skip
ZERO = {"zero": np.float32(0)}


def _loop(later: bool) -> Crafted:
    body = helper.make_graph(
        [node("Identity", ["go"], ["go_on"]), node("Sin", ["v"], ["v_out"])], "body",
        [value("i", INT64, []), value("go", BOOL, []), value("v", FLOAT, ["n", 3])],
        [value("go_on", BOOL, []), value("v_out", FLOAT, ["n", 3])],
    )  # fmt: skip
    bit = "bit" if later else "one"
    nodes = [
        *POSITIVE, node("Mul", [bit, "many"], ["turns"]), node("Loop", ["turns", "", "y0"], ["turned"], body=body),
        node("Mul", ["turned", "zero"], ["nothing"]), node("Add", ["y0", "nothing"], ["y"]),
    ]  # fmt: skip
    return crafted(model(nodes, {**ZERO, "many": np.int64(2**62), "one": np.int64(1)}))


def _expand(later: bool, operator: str = "Expand", many: int = MANY) -> Crafted:
    bit = "bit" if later else "one"
    grow = node("Expand", ["zero", "shape"], ["big"]) if operator == "Expand" else node("ConstantOfShape", ["shape"], ["big"])
    nodes = [
        *POSITIVE, node("Mul", [bit, "many"], ["more"]), node("Add", ["more", "one"], ["size"]),
        node("Unsqueeze", ["size", "axis"], ["shape"]), grow, node("ReduceSum", ["big"], ["sum"], keepdims=0),
        node("Add", ["y0", "sum"], ["y"]),
    ]  # fmt: skip
    return crafted(model(nodes, {**ZERO, "many": np.int64(many), "one": np.int64(1), "axis": np.array([0])}))


def _chain(length: int) -> Crafted:
    nodes = [node("Sin", [f"y{i}"], [f"y{i + 1}"]) for i in range(length - 1)]
    return crafted(model([*nodes, node("Sin", [f"y{length - 1}"], ["y"])], {}))


def _not_finite(operator: str) -> Crafted:
    nodes = [node("Sub", ["y0", "y0"], ["none"])]
    above = "none" if operator == "nan" else "one"
    nodes += [node("Exp", ["none"], ["one"]), node("Div", [above, "none"], ["y"])]
    return crafted(model(nodes, {}))


def _wide(declared: bool) -> Crafted:
    """Answers with 6 columns where 3 were promised, by the file itself or by the golden vectors only."""
    nodes = [
        node("ReduceMax", ["x"], ["top"], keepdims=0), node("Mul", ["top", "zero"], ["none"]),
        node("Add", ["none", "times"], ["asked"]), node("Cast", ["asked"], ["repeats"], to=INT64),
        node("Tile", ["y0", "repeats"], ["y"]),
    ]  # fmt: skip
    promised = [value("y", FLOAT, ["n", 3 if declared else "m"])]
    return crafted(model(nodes, {**ZERO, "times": np.float32([1, 2])}, promised))


def _missing_output() -> Crafted:
    return Crafted(good().file, golden({"y": -X @ WEIGHTS, "z": -X @ WEIGHTS}))


def _slow() -> Crafted:
    side = 512
    nodes = [
        node("ReduceMax", ["x"], ["top"], keepdims=0), node("Mul", ["square", "top"], ["a"]), node("MatMul", ["a", "a"], ["b"]),
        node("ReduceSum", ["b"], ["sum"], keepdims=0), node("Mul", ["sum", "zero"], ["nothing"]),
        node("Add", ["y0", "nothing"], ["y"]),
    ]  # fmt: skip
    return crafted(model(nodes, {**ZERO, "square": np.full((side, side), 1e-3, np.float32)}))


def _external(location: str, offset: str = "0", length: str = "48") -> Crafted:
    made = model([node("MatMul", ["x", "V"], ["v"]), node("Add", ["y0", "v"], ["y"])], {"V": WEIGHTS})
    tensor = next(held for held in made.graph.initializer if held.name == "V")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in {"location": location, "offset": offset, "length": length}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, text
    return crafted(made)


def _dimensions() -> Crafted:
    nodes = [node("MatMul", ["x", "V"], ["v"]), node("ReduceSum", ["v"], ["s"], keepdims=0), node("Add", ["y0", "s"], ["y"])]
    made = model(nodes, {"V": WEIGHTS})
    tensor = next(held for held in made.graph.initializer if held.name == "V")
    del tensor.dims[:]
    tensor.dims.extend([4, 2**40, 2**40])
    return crafted(made)


def _gather() -> Crafted:
    nodes = [
        *POSITIVE, node("Mul", ["bit", "none"], ["nothing"]), node("Add", ["nothing", "far"], ["index"]),
        node("Gather", ["W", "index"], ["row"]), node("ReduceSum", ["row"], ["sum"], keepdims=0), node("Add", ["y0", "sum"], ["y"]),
    ]  # fmt: skip
    return crafted(model(nodes, {**ZERO, "none": np.int64(0), "far": np.int64(2**40)}))


def _divide() -> Crafted:
    """An integer divided by zero: a trap of the processor on x86."""
    nodes = [
        *POSITIVE, node("Mul", ["bit", "none"], ["nothing"]), node("Div", ["one", "nothing"], ["trap"]),
        node("Cast", ["trap"], ["sum"], to=FLOAT), node("Add", ["y0", "sum"], ["y"]),
    ]  # fmt: skip
    return crafted(model(nodes, {**ZERO, "none": np.int64(0), "one": np.int64(1)}))


def _nested(depth: int = 200) -> Crafted:
    """Graphs within graphs, deeper than protobuf's own library would write them."""
    made = value("y", FLOAT, ["n", 3]).SerializeToString()
    inner = helper.make_graph([node("Identity", ["y0"], ["y"])], "g", [], [value("y", FLOAT, ["n", 3])]).SerializeToString()
    plain, step = inner, b""
    for _ in range(depth):
        branches = [(b"then_branch", inner), (b"else_branch", plain)]
        attributes = b"".join(_field(5, _field(1, name) + _field(6, graph) + b"\xa0\x01\x05") for name, graph in branches)
        step = _field(1, b"positive") + _field(2, b"y") + _field(4, b"If") + attributes
        inner = _field(1, step) + _field(2, b"g") + _field(12, made)
    shell = model(POSITIVE, ZERO)
    return Crafted(shell.SerializeToString() + _field(7, _field(1, step)), golden())


def _field(number: int, data: bytes) -> bytes:
    """One length-delimited field of a protobuf message."""
    size, count = bytearray(), len(data)
    while count > 127:
        size.append(count & 127 | 128)
        count >>= 7
    return bytes([number << 3 | 2]) + bytes([*size, count]) + data


def _sequence() -> Crafted:
    nodes = [node("SequenceConstruct", ["y0"], ["y"])]
    return crafted(model(nodes, {}, [helper.make_tensor_sequence_value_info("y", FLOAT, ["n", 3])]))


def _inputs() -> Crafted:
    made = onnx.load_from_string(good().file)
    made.graph.input[0].name = made.graph.node[0].input[0] = "other"
    return crafted(made)


def evil(act: str, at: int) -> Crafted:
    """The good answer, by way of an operator that does `act` (see evil.c)."""
    return crafted(model([node("Evil", ["y0"], ["y"], domain="evil", act=act, at=at)], {}, domains=("evil",)))


LOAD_FAILED = ("load-failed",)
SMALL = {"memory_bytes": 32 << 20}
FILES: tuple[Hostile, ...] = (
    Hostile("endless-loop", "load", lambda: _loop(False), ("call-timeout",), limit_s=5),
    Hostile("endless-loop-later", "trial", lambda: _loop(True), ("error-rate", "call-timeout"), limit_s=8),
    Hostile("expand-64-gib", "load", lambda: _expand(False), ("memory",)),
    Hostile("expand-64-gib-later", "trial", lambda: _expand(True), ("error-rate",), limit_s=5),
    Hostile("constant-64-gib", "load", lambda: _expand(False, "ConstantOfShape"), ("memory",)),
    Hostile("expand-1-gib", "load", lambda: _expand(False, many=1 << 28), ("memory",)),
    Hostile("200000-nodes", "load", lambda: _chain(200_000), ("load-timeout",), limit_s=6, trial={"memory_bytes": 4 << 30}),
    Hostile("60000-nodes", "load", lambda: _chain(60_000), ("memory", "crashed:SIGABRT"), limit_s=6, trial=SMALL),
    Hostile("nan", "load", lambda: _not_finite("nan"), ("non-finite",)),
    Hostile("infinite", "load", lambda: _not_finite("inf"), ("non-finite",)),
    Hostile("other-shape-than-golden", "load", lambda: _wide(False), ("golden-mismatch",), says="shape"),
    Hostile("other-shape-than-declared", "load", lambda: _wide(True), ("golden-mismatch", "call-failed")),
    Hostile("missing-output", "load", _missing_output, ("golden-mismatch",), says="z is missing"),
    Hostile("other-input", "load", _inputs, ("missing-input",)),
    Hostile("sequence-output", "load", _sequence, ("unsupported-type",)),
    Hostile("slow", "trial", _slow, ("latency",), says="median", limit_s=5),
    Hostile("external-absolute", "load", lambda: _external("/etc/passwd"), LOAD_FAILED),
    Hostile("external-dot-dot", "load", lambda: _external("../../../../../../../../etc/passwd"), LOAD_FAILED),
    Hostile("external-proc", "load", lambda: _external("/proc/self/environ"), LOAD_FAILED),
    Hostile("external-symlink", "load", lambda: _external(LINK), LOAD_FAILED),
    Hostile("external-record", "load", lambda: _external("../record.a"), LOAD_FAILED),
    Hostile("external-huge", "load", lambda: _external("4" * 64, length=str(2**50)), LOAD_FAILED),
    Hostile("memory-marker", "load", lambda: _external("*/_ORT_MEM_ADDR_/*", offset=str(0x400000)), LOAD_FAILED),
    Hostile("truncated", "load", lambda: Crafted(good().file[:-30], golden()), LOAD_FAILED),
    Hostile("garbage", "load", lambda: Crafted(np.random.default_rng(3).bytes(5000), golden()), LOAD_FAILED),
    Hostile("ort-bytes", "load", lambda: Crafted(b"\x18\0\0\0ORTM" + bytes(2000), golden()), LOAD_FAILED),
    Hostile("unknown-domain", "load", lambda: evil("segfault", 0), LOAD_FAILED),
    Hostile("dimension-overflow", "load", _dimensions, ("load-failed", "memory")),
    Hostile("gather-2-40", "load", _gather, ("call-failed", "load-failed")),
    Hostile("integer-trap", "load", _divide, ("crashed:SIGFPE", "golden-mismatch", "call-failed")),
    Hostile("200-graphs-deep", "load", _nested, ("load-failed",)),
)


def _native(act: str, phase: str, *reasons: str, at: int | None = None, limit_s: float = 2.0, says: str = "") -> Hostile:
    when = {"load": 0, "trial": 45, "committed": -3000}[phase] if at is None else at
    return Hostile(f"{act}@{phase}", phase, lambda: evil(act, when), reasons, says, limit_s, native=True)


DENIED = (
    "fork", "forkbomb", "exec", "connect", "datagram", "endpoint", "kill-parent", "kill-group", "signal-by-file", "ptrace-parent",
    "limit-parent", "slow-parent", "write", "overwrite", "unlink", "chmod", "passwd", "keys", "shm",
)  # fmt: skip
HANGS = ("call-timeout", "unresponsive")
NATIVE: tuple[Hostile, ...] = (
    *(_native(act, "load", "crashed:SIGABRT", says=f"denied: {act}") for act in DENIED),
    _native("segfault", "load", "crashed:SIGSEGV"), _native("abort", "load", "crashed:SIGABRT"),
    _native("exit", "load", "crashed:exit-0"), _native("overflow", "load", "crashed:SIGSEGV"),
    _native("kill-self", "load", "crashed:SIGKILL"), _native("alloc", "load", "crashed:SIGABRT", "memory"),
    _native("threads", "load", "crashed:SIGABRT", says="threads"),
    *(_native(act, "load", *HANGS, limit_s=5) for act in ("spin", "sleep", "stop", "deaf", "stderr", "hold")),
    _native("garbage", "load", "bad-reply"), _native("huge-frame", "load", "bad-reply"), _native("flood", "load", "bad-reply"),
    _native("connections", "load", "bad-reply"), _native("stuck-flood", "load", "call-timeout"),
    _native("odd-counts", "load", "bad-reply"), _native("hang-up", "load", *HANGS),
    _native("segfault", "trial", "crashed:SIGSEGV"), _native("exit3", "trial", "crashed:exit-3"),
    _native("spin", "trial", *HANGS, "error-rate", limit_s=5), _native("deaf", "trial", *HANGS, "error-rate", limit_s=5),
    _native("stop", "trial", *HANGS, limit_s=14), _native("hold", "trial", *HANGS, limit_s=14),
    _native("leak", "trial", "crashed:SIGABRT", "memory", "error-rate"),
    _native("stderr", "trial", *HANGS, "error-rate", limit_s=5), _native("fork", "trial", "crashed:SIGABRT"),
    _native("shut-listeners", "trial", "crashed:SIGABRT"), _native("backlog", "trial", "crashed:SIGABRT"),
    _native("unlisten", "trial", "crashed:SIGABRT"), _native("flood", "trial", "bad-reply"),
    _native("odd-counts", "trial", "bad-reply"), _native("hang-up", "trial", *HANGS, "crashed:exit-0"),
    _native("kill-parent", "trial", "crashed:SIGABRT"), _native("chmod", "trial", "crashed:SIGABRT"),
    _native("segfault", "committed", "crashed:SIGSEGV"), _native("leak", "committed", "crashed:SIGABRT", "memory"),
    _native("spin", "committed", *HANGS), _native("stop", "committed", *HANGS, limit_s=12),
    _native("exit", "committed", "crashed:exit-0"),
)  # fmt: skip
MODELS: Mapping[str, Hostile] = {each.id: each for each in (*FILES, *NATIVE)}
