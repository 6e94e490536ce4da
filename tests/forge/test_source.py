"""Every source that must be refused, each with its own reason."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeops.forge.source import Limits, load_source
from edgeops.wire.errors import EdgeopsError, Misuse, Rejected

FLOAT = TensorProto.FLOAT


def model_of(nodes, weights=(), domains=(), opset=18) -> onnx.ModelProto:
    """A valid model x (N, 4) -> y (N, 4)."""
    graph = helper.make_graph(
        list(nodes), "g", [helper.make_tensor_value_info("x", FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", FLOAT, ["N", 4])], list(weights),
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def relu() -> onnx.ModelProto:
    """The smallest good model."""
    return model_of([helper.make_node("Relu", ["x"], ["y"])])


def refused(path: Path, reason: str, limits: Limits | None = None, kind: type[EdgeopsError] = Rejected) -> EdgeopsError:
    """Load `path` and expect `reason`."""
    with pytest.raises(kind) as caught:
        load_source(path, limits)
    assert caught.value.reason == reason, str(caught.value)
    return caught.value


def saved(tmp_path: Path, model: onnx.ModelProto, name: str = "m.onnx") -> Path:
    """Write `model`."""
    path = tmp_path / name
    path.write_bytes(model.SerializeToString())
    return path


def loop_model() -> onnx.ModelProto:
    """A Loop inside the branch of an If, where a shallow check would miss it."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Identity", ["v"], ["v2"])], "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("c", TensorProto.BOOL, []),
         helper.make_tensor_value_info("v", FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("c2", TensorProto.BOOL, []), helper.make_tensor_value_info("v2", FLOAT, ["N", 4])],
    )
    branch = helper.make_graph(
        [helper.make_node("Loop", ["count", "true", "x"], ["z"], body=body)], "branch", [],
        [helper.make_tensor_value_info("z", FLOAT, ["N", 4])],
    )
    held = [numpy_helper.from_array(np.array(3, dtype=np.int64), "count"), numpy_helper.from_array(np.array(True), "true")]
    return model_of([helper.make_node("If", ["true"], ["y"], then_branch=branch, else_branch=branch)], held)


def test_good_model_loads(tmp_path: Path) -> None:
    """A plain model passes the gate."""
    assert load_source(saved(tmp_path, relu())).kind == "onnx"


@pytest.mark.parametrize("data", [b"", b"hello world, this is no model", b"\x00" * 64, b"\x08\x09"])
def test_garbage_is_not_onnx(tmp_path: Path, data: bytes) -> None:
    """Bytes that are no model are named so."""
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    refused(path, "not-onnx")


def test_cut_file_is_not_onnx(tmp_path: Path) -> None:
    """A file that lost its end is refused."""
    weight = numpy_helper.from_array(np.ones((4, 4), dtype=np.float32), "w")
    data = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], [weight]).SerializeToString()
    path = tmp_path / "m.onnx"
    for keep in (len(data) // 3, len(data) // 2, len(data) - 3):
        path.write_bytes(data[:keep])
        refused(path, "not-onnx")


def test_ort_format_is_named(tmp_path: Path) -> None:
    """The ORT format is refused by suffix and by content."""
    (tmp_path / "m.ort").write_bytes(relu().SerializeToString())
    assert "ORT format" in str(refused(tmp_path / "m.ort", "not-onnx"))
    (tmp_path / "m.onnx").write_bytes(b"\x18\x00\x00\x00ORTM" + bytes(32))
    assert "ORT format" in str(refused(tmp_path / "m.onnx", "not-onnx"))


@pytest.mark.parametrize("where", ["initializer", "attribute"])
def test_external_data_is_refused(tmp_path: Path, where: str) -> None:
    """A tensor that points at another file is refused wherever it stands."""
    tensor = numpy_helper.from_array(np.ones((4,), dtype=np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    if where == "initializer":
        model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], [tensor])
    else:
        model = model_of([helper.make_node("Constant", [], ["w"], value=tensor), helper.make_node("Add", ["x", "w"], ["y"])])
    refused(saved(tmp_path, model), "external-data")


@pytest.mark.parametrize(("domain", "op"), [("evil.corp", "Relu"), ("com.microsoft", "BiasGelu"), ("ai.onnx.training", "Adam")])
def test_custom_operator_is_refused(tmp_path: Path, domain: str, op: str) -> None:
    """Only the standard domains and the allowed quantization operators may occur."""
    refused(saved(tmp_path, model_of([helper.make_node(op, ["x"], ["y"], domain=domain)], domains=[domain])), "custom-op")


def test_local_function_is_refused(tmp_path: Path) -> None:
    """A function inside the file may hide anything, so it must be inlined first."""
    model = model_of([helper.make_node("F", ["x"], ["y"], domain="mine")], domains=["mine"])
    body = [helper.make_node("Relu", ["a"], ["b"])]
    model.functions.append(helper.make_function("mine", "F", ["a"], ["b"], body, [helper.make_opsetid("", 18)]))
    refused(saved(tmp_path, model), "custom-op")


def test_loop_needs_a_flag(tmp_path: Path) -> None:
    """A Loop is refused, also deep inside, unless it is allowed."""
    path = saved(tmp_path, loop_model())
    refused(path, "loop")
    assert load_source(path, Limits(loops=True)).kind == "onnx"


def test_too_many_nodes(tmp_path: Path) -> None:
    """Nodes are counted over all graphs."""
    names = ["x", *(f"t{i}" for i in range(20_000)), "y"]
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in pairwise(names)]
    refused(saved(tmp_path, model_of(nodes)), "too-many-nodes")


def test_too_large_before_reading(tmp_path: Path) -> None:
    """Size is checked before a byte is read."""
    refused(saved(tmp_path, relu()), "too-large", Limits(size=10))


def test_pickles_and_unknown_files_are_misuse(tmp_path: Path) -> None:
    """Pickles, unknown suffixes and absent files are the caller's to mend."""
    for name in ("m.pkl", "m.joblib", "m.txt"):
        (tmp_path / name).write_bytes(b"x")
        refused(tmp_path / name, "unknown-source", kind=Misuse)
    refused(tmp_path / "absent.onnx", "no-such-file", kind=Misuse)


def test_untrusted_skops_type(tmp_path: Path) -> None:
    """A skops file with a type that is not trusted is refused before anything is built."""
    import skops.io
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    x, y = np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1])
    model = make_pipeline(FunctionTransformer(print), LogisticRegression())
    model.steps[1][1].fit(x, y)
    skops.io.dump(model, tmp_path / "m.skops")
    (tmp_path / "bad.skops").write_bytes(b"no zip")
    found = refused(tmp_path / "bad.skops", "not-skops")
    assert "bad.skops" in str(found)
    refused(tmp_path / "m.skops", "untrusted-type")


def test_missing_extra_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the error gives the command that installs it."""
    import sys

    monkeypatch.setitem(sys.modules, "skops.io", None)
    monkeypatch.setitem(sys.modules, "skops", None)
    (tmp_path / "m.skops").write_bytes(b"x")
    assert "pip install 'edgeops[sklearn]'" in str(refused(tmp_path / "m.skops", "missing-extra", kind=Misuse))


def test_string_labels_and_unfitted_are_refused(tmp_path: Path) -> None:
    """What cannot be judged by integer labels, or was never fitted, is refused by name."""
    import skops.io
    from sklearn.linear_model import LogisticRegression

    x = np.eye(4, dtype=np.float32)
    skops.io.dump(LogisticRegression().fit(x, np.array(["a", "b", "a", "b"])), tmp_path / "s.skops")
    refused(tmp_path / "s.skops", "string-labels")
    skops.io.dump(LogisticRegression(), tmp_path / "u.skops")
    refused(tmp_path / "u.skops", "not-convertible")
