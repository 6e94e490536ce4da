"""Real ONNX models, good and hostile, laid out as the agent's disk has them; every worker is a real process."""

import hashlib
import json
import socket
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeops.wire.golden import GoldenCase, GoldenSet, Tolerance
from edgeops_agent.shell.runnable import Limits, Runnable
from edgeops_agent.shell.workers import Worker

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
LIMITS = Limits(memory_bytes=256 << 20, load_ms=5000, call_ms=1000)


class Workshop:
    """Builds models and what belongs to them in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs = folder / "blobs"
        self.blobs.mkdir(parents=True, exist_ok=True)

    def save(self, name, nodes, inputs, outputs, initializers=(), *, external=True, golden=None, version=1, **changes):
        """Write a model (weights as blobs named by their sha256) and return its Runnable."""
        stored = [self._external(array, key) if external else onnx.numpy_helper.from_array(array, key)
                  for key, array in dict(initializers).items()]
        graph = helper.make_graph(nodes, name, inputs, outputs, stored)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        data = model.SerializeToString()
        digest = hashlib.sha256(data + str(version).encode()).hexdigest()
        skeleton = self.folder / f"{digest}.onnx"
        skeleton.write_bytes(data)
        vectors = None
        if golden is not None:
            vectors = self.folder / f"{digest}.golden"
            vectors.write_bytes(GoldenSet(tuple(golden), {"any": Tolerance(1000, 1000, 0)}).encode())
        made = Runnable("main", name, version, digest, skeleton, self.blobs, {}, vectors, None, "x86-vnni", LIMITS)
        return replace(made, **changes)

    def linear(self, *, seed=0, name="linear", wrong=0.0, with_golden=True, **changes):
        """y = x @ W, x [batch, 4], y [batch, 3]; `wrong` is added to the golden outputs. Returns (runnable, W)."""
        weight = np.random.default_rng(seed).normal(size=(4, 3)).astype(np.float32)
        x = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32)
        golden = [GoldenCase({"x": x}, {"y": x @ weight + np.float32(wrong)})] if with_golden else None
        runnable = self.save(
            name, [helper.make_node("MatMul", ["x", "W"], ["y"])],
            [value("x", FLOAT, ["batch", 4])], [value("y", FLOAT, ["batch", 3])], {"W": weight}, golden=golden, **changes,
        )
        return runnable, weight

    def endless(self, **changes):
        """A Loop of 2^62 turns whenever x[0] > 0, of one turn otherwise."""
        body = helper.make_graph(
            [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Sin", ["v"], ["v_out"])], "body",
            [value("i", INT64, []), value("go", BOOL, []), value("v", FLOAT, [1])],
            [value("go_on", BOOL, []), value("v_out", FLOAT, [1])],
        )
        nodes = [
            helper.make_node("Greater", ["x", "zero"], ["positive"]),
            helper.make_node("Cast", ["positive"], ["bit"], to=INT64),
            helper.make_node("Mul", ["bit", "many"], ["product"]),
            helper.make_node("Add", ["product", "one"], ["turns_1d"]),
            helper.make_node("Squeeze", ["turns_1d"], ["turns"]),
            helper.make_node("Loop", ["turns", "", "x"], ["y"], body=body),
        ]
        constants = {"zero": np.zeros(1, np.float32), "many": np.array([2**62]), "one": np.array([1])}
        return self.save("endless", nodes, [value("x", FLOAT, [1])], [value("y", FLOAT, [1])], constants, external=False, **changes)

    def stubborn(self, **changes):
        """Squares an n x n matrix for an input of n numbers: for large n one node that heeds no request to stop."""
        nodes = [
            helper.make_node("Unsqueeze", ["x", "last"], ["column"]),
            helper.make_node("Unsqueeze", ["x", "first"], ["row"]),
            helper.make_node("MatMul", ["column", "row"], ["square"]),
            helper.make_node("MatMul", ["square", "square"], ["again"]),
            helper.make_node("ReduceSum", ["again"], ["y"], keepdims=0),
        ]
        return self.save(
            "stubborn", nodes, [value("x", FLOAT, ["n"])], [value("y", FLOAT, [])],
            {"last": np.array([1]), "first": np.array([0])}, external=False, **changes,
        )

    def glutton(self, **changes):
        """Expands its input to 64 GiB before it adds it up."""
        nodes = [helper.make_node("Expand", ["x", "shape"], ["big"]), helper.make_node("ReduceSum", ["big"], ["y"], keepdims=0)]
        return self.save("glutton", nodes, [value("x", FLOAT, [1])], [value("y", FLOAT, [])],
                         {"shape": np.array([1 << 34])}, external=False, **changes)

    def nan(self, **changes):
        """Answers 0/0."""
        nodes = [helper.make_node("Sub", ["x", "x"], ["zero"]), helper.make_node("Div", ["zero", "zero"], ["y"])]
        return self.save("nan", nodes, [value("x", FLOAT, [1])], [value("y", FLOAT, [1])], **changes)

    def _external(self, array, name):
        data = np.ascontiguousarray(array).tobytes()
        digest = hashlib.sha256(data).hexdigest()
        (self.blobs / digest).write_bytes(data)
        tensor = TensorProto(name=name, dims=array.shape, data_location=TensorProto.EXTERNAL,
                             data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
        for key, text in {"location": digest, "offset": "0", "length": str(len(data))}.items():
            entry = tensor.external_data.add()
            entry.key, entry.value = key, text
        return tensor


def value(name, kind, shape):
    """An ONNX value_info."""
    return helper.make_tensor_value_info(name, kind, shape)


def poll(condition, seconds=10.0):
    """Wait until `condition()` is true; fail after the deadline."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "the condition did not come true in time"
        time.sleep(0.01)


@pytest.fixture
def shop(tmp_path):
    """A workshop in a folder of its own."""
    return Workshop(tmp_path / "models")


@pytest.fixture
def tcp():
    """A listening loopback socket on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def unix(tmp_path):
    """A listening Unix socket and its path."""
    path = str(tmp_path / "i.sock")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen(64)
        yield sock, path


@pytest.fixture
def hire():
    """Start workers; all are stopped at the end of the test."""
    hired = []

    def start(runnable, sockets=(), on_end=None):
        worker = Worker(on_end)
        hired.append(worker)
        worker.start(runnable, sockets)
        return worker

    yield start
    for worker in hired:
        worker.stop()


@pytest.fixture
def serving(hire):
    """Start a worker, check it and let it serve."""

    def start(runnable, sockets):
        worker = hire(runnable, sockets)
        outcome = worker.check()
        assert outcome.ok, outcome
        worker.serve()
        return worker

    return start


@pytest.fixture
def wait_for():
    """The polling function."""
    return poll


@pytest.fixture
def activate(tmp_path):
    """Write the active pointer of a slot as the supervisor does; returns the state folder."""

    def write(runnable, slot="main"):
        folder = tmp_path / "state" / "slots"
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f"{slot}.tmp"
        fresh.write_text(json.dumps(json.loads(runnable.to_json())))
        fresh.replace(folder / f"{slot}.json")
        return folder.parent

    return write
