"""The two layouts give the same model, and the pure assembler rebuilds the inline one."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeops.forge.canonical import canonicalise, expose_penultimate, pack
from edgeops.forge.flow import Forged
from edgeops.forge.pack import OBJECTS
from edgeops.forge.runtime import PENULTIMATE, open_session
from edgeops.forge.source import load_source
from edgeops.parcel.assembly import assemble_inline
from edgeops.parcel.manifest import Manifest
from edgeops.parcel.walker import tensor_ranges

from .conftest import Case, blobs


def object_of(release: Path, digest: str) -> bytes:
    """An object of a release folder."""
    return (release / OBJECTS / digest).read_bytes()


def test_inline_layout_rebuilds_exactly(forged: Forged) -> None:
    """For every variant the segments give the signed file, and it computes the same bits as the external layout."""
    x, _ = blobs(40, 7)
    for variant in forged.release.variants.values():
        manifest = Manifest.decode(object_of(forged.folder, variant.manifest.sha256))
        assert manifest.inline and manifest.tensors
        skeleton = object_of(forged.folder, manifest.inline.skeleton.sha256)
        whole = assemble_inline(manifest.inline, skeleton, lambda digest: object_of(forged.folder, digest))
        objects = forged.folder / OBJECTS
        outside = open_session(objects / manifest.skeleton.sha256, objects).run(None, {"input": x})
        inside = open_session(whole).run(None, {"input": x})
        for a, b in zip(outside, inside, strict=True):
            assert a.tobytes() == b.tobytes()


def test_objects_are_named_by_their_bytes(case: Case) -> None:
    """Every object carries the SHA-256 of its bytes, and the skeleton holds no large tensor."""
    packed = pack(canonicalise(load_source(case.model).model), 4096)
    assert packed.tensors
    assert all(hashlib.sha256(body).hexdigest() == digest for digest, body in packed.objects.items())
    skeleton = packed.objects[packed.skeleton.sha256]
    assert all(part.end - part.start < 4096 for part in tensor_ranges(skeleton))


def test_all_tensors_become_raw_and_metadata_goes(case: Case) -> None:
    """The canonical form holds raw_data only, names no tool, and canonicalising again changes nothing."""
    model = load_source(case.model).model
    model.doc_string, model.producer_name = "secret path /home/me", "tool"
    model.graph.node[0].doc_string = "secret"
    once = canonicalise(model)
    assert all(tensor.HasField("raw_data") for tensor in once.graph.initializer)
    assert b"secret" not in once.SerializeToString() and b"tool" not in once.SerializeToString()
    assert canonicalise(once).SerializeToString(deterministic=True) == once.SerializeToString(deterministic=True)


def test_packing_is_deterministic(case: Case) -> None:
    """Two runs give the same manifest."""
    first, second = (pack(canonicalise(load_source(case.model).model)) for _ in range(2))
    assert first == second


def test_shared_weights_are_one_object() -> None:
    """Two initializers with equal bytes travel once and both layouts still load."""
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"]), helper.make_node("MatMul", ["h", "b"], ["y"])]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 64])],
        [numpy_helper.from_array(weight, "a"), numpy_helper.from_array(weight, "b")],
    )
    packed = pack(canonicalise(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)))
    assert len(packed.tensors) == 1
    whole = assemble_inline(packed.inline, packed.objects[packed.inline.skeleton.sha256], packed.objects.__getitem__)
    got = open_session(whole).run(None, {"x": np.eye(64, dtype=np.float32)})[0]
    assert np.allclose(got, weight @ weight, atol=1e-4)


@pytest.mark.parametrize("threshold", [1, 64, 1 << 20])
def test_any_threshold_rebuilds(case: Case, threshold: int) -> None:
    """With every tensor outside, or none, the inline file is the same."""
    model = canonicalise(load_source(case.model).model)
    packed = pack(model, threshold)
    inline = packed.inline
    whole = assemble_inline(inline, packed.objects[inline.skeleton.sha256], packed.objects.__getitem__)
    assert whole == model.SerializeToString(deterministic=True)


def test_penultimate_is_what_enters_the_last_layer(case: Case) -> None:
    """The extra output holds the hidden activations, and the scores stay as they were."""
    model = canonicalise(load_source(case.model).model)
    shown = expose_penultimate(model, "probabilities")
    x, _ = blobs(20, 8)
    names = ["probabilities", PENULTIMATE]
    scores, inner = open_session(shown.SerializeToString()).run(names, {"input": x})
    before = open_session(model.SerializeToString()).run(["probabilities"], {"input": x})[0]
    assert inner.shape == (20, 96) and (inner >= 0).all() and (inner > 0).any()
    assert np.allclose(scores, before, atol=1e-6)


def test_no_penultimate_in_a_tree_or_a_single_layer() -> None:
    """Without a hidden layer the model is left alone."""
    weight = numpy_helper.from_array(np.ones((4, 3), dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])], [weight],
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    assert expose_penultimate(model, "y") is model


def test_weights_listed_as_inputs_become_constants() -> None:
    """An old exporter's model has one input after canonicalising."""
    value = np.arange(16, dtype=np.float32).reshape(4, 4)
    kinds = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("w", [4, 4]), ("x", ["N", 4]))]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", kinds, made, [numpy_helper.from_array(value, "w")])
    model = canonicalise(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=3))
    session = open_session(model.SerializeToString())
    assert [item.name for item in model.graph.input] == ["x"]
    assert (session.run(None, {"x": np.eye(4, dtype=np.float32)})[0] == value).all()
