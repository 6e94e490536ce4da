"""Tiny real models as signed releases, made in milliseconds: each version has weights of its own, so that its answers tell it."""

import hashlib
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, helper

from edgeops.parcel.manifest import Manifest
from edgeops.wire.envelope import digest_of, seal
from edgeops.wire.golden import GoldenCase, GoldenSet, Tolerance
from edgeops.wire.keys import Signer, sha256
from edgeops.wire.release import Release, Side, Tensor, Variant

NAME, FEATURES, CLASSES = "tiny", 16, 4
X = np.ones((1, FEATURES), np.float32)


@dataclass(frozen=True, eq=False)
class Tiny:
    """A release, its objects by digest, and what it answers to X."""

    version: int
    envelope: bytes
    objects: dict[str, bytes]
    answer: np.ndarray

    @property
    def name(self) -> str:
        """NAME:VERSION."""
        return f"{NAME}:{self.version}"

    @property
    def digest(self) -> str:
        """What an order calls it."""
        return digest_of(self.envelope, "release")


def tiny(signer: Signer, fleet: str, version: int, hidden: int, now: int) -> Tiny:
    """y = (x @ A) @ B with weights drawn from `version`; 80 bytes for each of `hidden`."""
    rng = np.random.default_rng(version)
    weights = {
        "a": (rng.normal(size=(FEATURES, hidden)) / 4).astype(np.float32),
        "b": (rng.normal(size=(hidden, CLASSES)) / np.sqrt(hidden)).astype(np.float32),
    }
    x = rng.normal(size=(2, FEATURES)).astype(np.float32)
    golden = GoldenSet((GoldenCase({"x": x}, {"y": _apply(weights, x)}),), {"any": Tolerance(100_000, 10_000, 0)}).encode()
    skeleton, tensors = _skeleton(weights), [weight.tobytes() for weight in weights.values()]
    manifest = Manifest(_side(skeleton), tuple(map(_side, tensors)), _side(golden)).encode()
    bodies = [manifest, skeleton, golden, *tensors]
    variant = Variant(("any",), {}, _side(manifest), sum(map(len, bodies)))
    shapes = (Tensor("x", "float32", (-1, FEATURES)),), (Tensor("y", "float32", (-1, CLASSES)),)
    release = Release(fleet, "model", NAME, version, now, *shapes, 9, 17, "1.20", {"base": variant}, {})
    return Tiny(version, seal("release", release.payload(), [signer]), {sha256(body): body for body in bodies}, _apply(weights, X))


def _apply(weights: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    return (x @ weights["a"]) @ weights["b"]


def _side(data: bytes) -> Side:
    return Side(sha256(data), len(data))


def _skeleton(weights: dict[str, np.ndarray]) -> bytes:
    """The graph, whose weights lie beside it in files named by their digests."""
    stored = []
    for name, weight in weights.items():
        tensor = TensorProto(name=name, dims=weight.shape, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
        digest = hashlib.sha256(weight.tobytes()).hexdigest()
        for key, text in {"location": digest, "offset": "0", "length": str(weight.nbytes)}.items():
            entry = tensor.external_data.add()
            entry.key, entry.value = key, text
        stored.append(tensor)
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"]), helper.make_node("MatMul", ["h", "b"], ["y"])]
    value = helper.make_tensor_value_info
    ends = [value("x", TensorProto.FLOAT, ["n", FEATURES])], [value("y", TensorProto.FLOAT, ["n", CLASSES])]
    graph = helper.make_graph(nodes, NAME, *ends, stored)
    made: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    return made
