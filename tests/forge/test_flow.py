"""From a source to a release folder: what passes, what is refused and why."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeops.forge.dataset import Dataset, check_labels
from edgeops.forge.evaluate import Latency, Quality, drop_bound, quality, wilson
from edgeops.forge.flow import Forged, NothingPassed, add_model
from edgeops.forge.gate import Gates, judge
from edgeops.forge.pack import OBJECTS
from edgeops.forge.trial import Options
from edgeops.parcel.manifest import Manifest
from edgeops.sketch.reference import ReferenceProfile
from edgeops.wire.errors import Misuse, Rejected

from .conftest import Case, blobs, forge

ANY_SPEED = Options(gates=Gates(min_speed=0.0))


def test_fp32_agrees_with_the_estimator(case: Case, forged: Forged) -> None:
    """The converted network gives the estimator's label on every evaluation row."""
    import skops.io

    from edgeops.forge.runtime import open_session

    held = skops.io.get_untrusted_types(file=case.model)
    estimator = skops.io.load(case.model, trusted=held)
    objects = forged.folder / OBJECTS
    manifest = Manifest.decode((objects / forged.release.variants["fp32"].manifest.sha256).read_bytes())
    with np.load(case.evaluation) as data:
        labels = open_session(objects / manifest.skeleton.sha256, objects).run(["label"], {"input": data["x"]})[0]
        assert (labels == estimator.predict(data["x"])).all()
    assert forged.rows[0].agreement == 1.0


def test_int8_passes_the_accuracy_gate(case: Case, tmp_path: Path) -> None:
    """Static int8 keeps accuracy within half a point and is released when speed is not asked for."""
    done = forge(case, tmp_path / "r", options=ANY_SPEED)
    rows = {row.variant: row for row in done.rows}
    assert rows["int8"].passed, rows["int8"]
    assert rows["fp32"].accuracy - rows["int8"].accuracy <= 0.005
    assert rows["int8"].agreement >= 0.99 and set(done.release.variants) == {"fp32", "int8", "store_i8"}
    assert done.best == "int8" and done.release.variants["int8"].classes == ("any",)


def test_stored_weights_are_smaller_and_agree(forged: Forged) -> None:
    """The storage variant passes with fewer bytes than fp32."""
    rows = {row.variant: row for row in forged.rows}
    assert rows["store_i8"].passed and rows["store_i8"].size < 0.6 * rows["fp32"].size
    assert rows["store_i8"].agreement >= 0.99


def test_tree_is_fp32_only_with_a_reason(case: Case, tmp_path: Path) -> None:
    """A forest is released as it is, and the table says why nothing smaller was made."""
    import skops.io

    from edgeops.forge.source import Limits

    trusted = tuple(skops.io.get_untrusted_types(file=case.forest))
    done = forge(case, tmp_path / "r", case.forest, options=Options(limits=Limits(trusted=trusted)))
    assert set(done.release.variants) == {"fp32"}
    reasons = {row.variant: row.reason for row in done.rows}
    assert reasons == {"fp32": "pass", "int8": "nothing-to-quantize", "store_i8": "nothing-to-quantize"}


def test_nothing_passes_is_refused_with_the_table(case: Case, tmp_path: Path) -> None:
    """Below the accuracy floor nothing is written and every row has its reason."""
    with pytest.raises(NothingPassed) as caught:
        forge(case, tmp_path / "r", options=Options(gates=Gates(min_accuracy=0.9999)))
    assert caught.value.reason == "no-variant-passes"
    assert {row.reason for row in caught.value.rows} == {"accuracy-floor"}
    assert not (tmp_path / "r").exists()


def test_only_wanted_variants_are_released(case: Case, tmp_path: Path) -> None:
    """fp32 stays the yardstick but is not released when it was not asked for."""
    done = forge(case, tmp_path / "r", options=Options(variants=("store_i8",)))
    assert set(done.release.variants) == {"store_i8"}


def test_release_is_reproducible(case: Case, tmp_path: Path, forged: Forged) -> None:
    """A second run gives the same bytes for all variants; only the report with its timings may differ."""
    again = forge(case, tmp_path / "r")
    common = set(again.release.variants) & set(forged.release.variants)
    assert common and all(again.release.variants[name] == forged.release.variants[name] for name in common)


def test_report_and_lineage_say_where_it_comes_from(case: Case, forged: Forged) -> None:
    """The side documents hold digests of source and data, tools, gates and a verdict for every variant."""
    import hashlib

    sides = {name: json.loads((forged.folder / OBJECTS / side.sha256).read_bytes()) for name, side in forged.release.sides.items()}
    lineage, report = sides["lineage"], sides["report"]
    assert lineage["source"]["sha256"] == hashlib.sha256(case.model.read_bytes()).hexdigest()
    assert lineage["data"]["evaluation"] == {"sha256": hashlib.sha256(case.evaluation.read_bytes()).hexdigest(), "rows": 3000}
    assert {"onnx", "onnxruntime", "skl2onnx"} <= set(lineage["tools"])
    assert set(report["verdicts"]) == {"fp32", "int8", "store_i8"} and report["gates"]["max_drop_ppm"] == 5000


def test_reference_sees_its_own_kind_of_rows_and_notices_others(forged: Forged) -> None:
    """The profile decodes, has penultimate probes, and counts fresh rows as it counted the reference."""
    from edgeops.forge.runtime import PENULTIMATE, open_session

    objects = forged.folder / OBJECTS
    variant = forged.release.variants["fp32"]
    manifest = Manifest.decode((objects / variant.manifest.sha256).read_bytes())
    profile = ReferenceProfile.from_bytes((objects / manifest.reference.sha256).read_bytes())
    assert profile.penultimate_space and profile.outputs == 10
    session = open_session(objects / manifest.skeleton.sha256, objects)
    x, _ = blobs(2000, 11)
    gaps = []
    for rows in (x, x + 1.0):
        scores, inner = session.run(["probabilities", PENULTIMATE], {"input": rows.astype(np.float32)})
        counts = profile.count(rows, scores, inner)[:, :10]
        mine, theirs = counts / counts.sum(axis=1, keepdims=True), profile.counts[:, :10]
        gaps.append(float(np.abs(mine - theirs / theirs.sum(axis=1, keepdims=True)).sum(axis=1).mean()))
    assert gaps[0] < 0.15 and gaps[1] > 3 * gaps[0], gaps


def data_file(path: Path, **arrays: np.ndarray) -> Path:
    """An .npz."""
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("wrong-shape", lambda x, y: {"x": x[:, :10], "y": y}),
        ("bad-data", lambda x, y: {"x": np.where(x > 3, np.nan, x), "y": y}),
        ("bad-data", lambda x, y: {"x": x, "y": y[:-1]}),
        ("bad-data", lambda x, y: {"x": x, "y": y + 0.5}),
        ("bad-data", lambda x, y: {"x": np.array([["a"] * 64] * 3), "y": y[:3]}),
        ("bad-data", lambda x, y: {"rows": x, "y": y}),
        ("no-labels", lambda x, y: {"x": x}),
        ("bad-data", lambda x, y: {"x": np.array([{}], dtype=object), "y": y}),
        ("bad-data", lambda x, y: {"x": np.float32(3), "y": y}),
        ("bad-data", lambda x, y: {"x": x[:0], "y": y[:0]}),
        ("bad-data", lambda x, y: {"x": x, "y": np.int64(3)}),
        ("one-class", lambda x, y: {"x": x, "y": y * 0 + 3}),
    ],
)
def test_bad_evaluation_data(case: Case, tmp_path: Path, reason: str, change) -> None:
    """Each fault of the evaluation data has its reason."""
    path = data_file(tmp_path / "e.npz", **change(*blobs(200, 5)))
    with pytest.raises(Rejected) as caught:
        forge(case, tmp_path / "r", evaluation=path)
    assert caught.value.reason == reason, str(caught.value)


@pytest.mark.parametrize(("low", "high"), [(-1, 3), (0, 4), (7, 2**40)])
def test_labels_the_model_cannot_give_are_refused(low: int, high: int) -> None:
    """The arg max of four scores is 0 to 3; a model that names its labels itself may use any."""
    data = Dataset("evaluation", np.zeros((2, 1)), np.array([low, high]), "")
    with pytest.raises(Rejected, match="bad-labels"):
        check_labels(data, 4)
    check_labels(data, None)
    check_labels(Dataset("evaluation", np.zeros((2, 1)), np.array([0, 3]), ""), 4)


def test_a_model_no_better_than_one_answer_is_doubted(case: Case, tmp_path: Path) -> None:
    """Labels that do not belong to the rows are released all the same, but not without a warning."""
    x, y = blobs(400, 5)
    shuffled = forge(case, tmp_path / "r", evaluation=data_file(tmp_path / "e.npz", x=x, y=np.where(y > 0, 0, 1)))
    assert any("do labels and rows match?" in warning for warning in shuffled.warnings)
    assert forge(case, tmp_path / "s").warnings == ()


def test_a_reference_that_is_too_small_is_announced(case: Case, tmp_path: Path) -> None:
    """Without enough reference rows no drift can be watched on any device, and the publisher is told so at once."""
    with np.load(case.reference) as data:
        few = data_file(tmp_path / "few.npz", x=data["x"][:199])
    done = forge(case, tmp_path / "r", reference=few)
    (warning,) = done.warnings
    assert "no drift will be watched: the reference has 199 rows, at least 200 are needed" in warning
    objects = done.folder / OBJECTS
    for variant in done.release.variants.values():
        assert Manifest.decode((objects / variant.manifest.sha256).read_bytes()).reference is None


def test_evaluating_on_calibration_rows_is_refused(case: Case, tmp_path: Path) -> None:
    """Shared rows are refused beyond one per cent and named in a warning below it."""
    with pytest.raises(Rejected, match="data-overlap"):
        forge(case, tmp_path / "r", evaluation=case.calib)
    with np.load(case.calib) as calib, np.load(case.evaluation) as evaluation:
        x, y = np.concatenate([evaluation["x"], calib["x"][:3]]), np.concatenate([evaluation["y"], calib["y"][:3]])
    done = forge(case, tmp_path / "r", evaluation=data_file(tmp_path / "e.npz", x=x, y=y))
    assert done.warnings == ("3 of 3003 evaluation rows are calibration rows too",)


def test_used_folder_and_bad_names_are_misuse(case: Case, tmp_path: Path) -> None:
    """A folder with content is never overwritten, and names are ids."""
    (tmp_path / "x").write_text("mine")
    with pytest.raises(Misuse, match="folder-in-use"):
        forge(case, tmp_path)
    with pytest.raises(Misuse, match="bad-name"):
        forge(case, tmp_path / "r", name="no spaces")


def convolution(path: Path, batch: int | str, classes: int = 5) -> Path:
    """A small random image classifier with a fixed or free batch."""
    rng = np.random.default_rng(0)
    held = {
        "k": rng.normal(0, 0.2, (32, 3, 3, 3)), "kb": rng.normal(0, 0.1, (32,)), "w": rng.normal(0, 0.5, (32, classes)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "k", "kb"], ["c"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]), helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, classes])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in held.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.mark.parametrize("batch", ["N", 1, 4])
def test_image_model_with_free_and_fixed_batch(tmp_path: Path, batch: int | str) -> None:
    """A convolution goes through whatever its batch, and its golden cases have the batch it needs."""
    from edgeops.forge.golden import GoldenSet

    model = convolution(tmp_path / "m.onnx", batch)
    from edgeops.forge.runtime import open_session, run_rows

    def rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        x = (rng.normal(0, 1, (n, 3, 16, 16)) + rng.normal(0, 1, (n, 3, 1, 1))).astype(np.float32)
        return x, run_rows(open_session(model.read_bytes()), x)["y"].argmax(axis=1)

    x, y = rows(402, 1)
    calib, evaluation = data_file(tmp_path / "c.npz", x=rows(60, 2)[0]), data_file(tmp_path / "e.npz", x=x, y=y)
    done = add_model(
        model, name="cnn", version=3, fleet="f", calib=calib, evaluation=evaluation, out=tmp_path / "r", now=1, options=ANY_SPEED
    )
    assert {row.variant: row.reason for row in done.rows}["store_i8"] in {"pass", "agreement"}
    assert done.rows[0].accuracy == 1.0 and done.release.version == 3
    objects = done.folder / OBJECTS
    manifest = Manifest.decode((objects / done.release.variants["fp32"].manifest.sha256).read_bytes())
    golden = GoldenSet.decode((objects / manifest.golden.sha256).read_bytes())
    assert len(golden.cases) >= 16
    assert all(item.inputs["x"].shape[0] == (1 if batch == "N" else batch) for item in golden.cases)


def test_regression_is_judged_by_noise(tmp_path: Path) -> None:
    """A model without classes needs no labels and passes by its signal to noise ratio."""
    import skops.io
    from sklearn.neural_network import MLPRegressor

    x, y = blobs(800, 1)
    skops.io.dump(MLPRegressor(hidden_layer_sizes=(64,), max_iter=20, random_state=0).fit(x, y.astype(float)), tmp_path / "m.skops")
    calib, evaluation = data_file(tmp_path / "c.npz", x=x[:300]), data_file(tmp_path / "e.npz", x=blobs(400, 3)[0])
    done = add_model(
        tmp_path / "m.skops", name="r", version=1, fleet="f", calib=calib, evaluation=evaluation, out=tmp_path / "r", now=1
    )
    rows = {row.variant: row for row in done.rows}
    assert rows["fp32"].passed and rows["fp32"].accuracy is None and "store_i8" in done.release.variants


LEVEL = Latency(10.0, 11.0, 1.5, 1.4, 1.6)
GOOD = Quality(5000, 0.95, 0.94, 0.96, 0.001, 0.003, 0.995, 0.993, 35.0)


@pytest.mark.parametrize(
    ("kind", "quality_", "timing", "size", "reason"),
    [
        ("compute", GOOD, LEVEL, 0.3, "pass"),
        ("compute", replace(GOOD, drop=0.006), LEVEL, 0.3, "accuracy-drop"),
        ("storage", replace(GOOD, drop=0.006), LEVEL, 0.3, "accuracy-drop"),
        ("compute", replace(GOOD, agreement=0.98), LEVEL, 0.3, "agreement"),
        ("compute", replace(GOOD, drop_high=0.02), LEVEL, 0.3, "inconclusive"),
        ("storage", replace(GOOD, drop_high=0.02), LEVEL, 0.3, "pass"),
        ("compute", GOOD, replace(LEVEL, ratio=0.9), 0.3, "slower"),
        ("storage", GOOD, replace(LEVEL, ratio=0.9), 0.3, "pass"),
        ("compute", GOOD, Latency(1, 9, 1.3, 0.7, 3.0), 0.3, "timing-unclear"),
        ("storage", GOOD, LEVEL, 0.95, "not-smaller"),
        ("compute", Quality(9, None, None, None, None, None, None, None, 20.0), LEVEL, 0.3, "sqnr"),
        ("plain", replace(GOOD, drop=0.0), replace(LEVEL, ratio=1.0), 1.0, "pass"),
    ],
)
def test_each_gate_has_its_reason(kind: str, quality_: Quality, timing: Latency, size: float, reason: str) -> None:
    """Every gate can fail, alone, under its own name."""
    assert judge(kind, quality_, timing, size, Gates()).reason == reason


def test_bounds_hold_what_they_promise() -> None:
    """In 2,000 simulated evaluations the one-sided 95 % bounds fail in about 5 % of cases."""
    rng = np.random.default_rng(0)
    n, lost, won = 3000, 0.006, 0.003
    draws = rng.multinomial(n, [lost, won, 1 - lost - won], 2000)
    missed = np.mean([drop_bound(b, c, n) < lost - won for b, c, _ in draws])
    assert 0.02 <= missed <= 0.08, missed
    low = np.mean([wilson(k, 500)[0] > 0.97 for k in rng.binomial(500, 0.97, 2000)])
    assert low <= 0.08


def test_quality_of_a_broken_variant() -> None:
    """Outputs that are not finite never pass for good."""
    plain = {"p": np.eye(10, dtype=np.float32)}
    broken = {"p": np.full((10, 10), np.nan, dtype=np.float32)}
    found = quality(broken, plain, np.arange(10))
    assert found.sqnr_db < 0 and found.agreement < 0.2
