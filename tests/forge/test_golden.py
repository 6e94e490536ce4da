"""Golden vectors: no false alarm over session settings, and an alarm for another or damaged model."""

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeops.forge.flow import Forged
from edgeops.forge.gate import Gates
from edgeops.forge.golden import choose, host_class
from edgeops.forge.pack import OBJECTS
from edgeops.forge.runtime import LEVELS, open_session
from edgeops.forge.trial import Options
from edgeops.parcel.assembly import assemble_inline
from edgeops.parcel.manifest import Manifest
from edgeops.wire.golden import GoldenSet, compare
from edgeops.wire.release import Variant

from .conftest import Case, forge


@pytest.fixture(scope="module")
def release(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Forged:
    """All three variants of the first network."""
    return forge(case, tmp_path_factory.mktemp("g") / "r", options=Options(gates=Gates(min_speed=0.0)))


@pytest.fixture(scope="module")
def other(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Forged:
    """The same network trained from another seed on the same data: as near as another model comes."""
    return forge(case, tmp_path_factory.mktemp("g") / "o", case.other, options=Options(gates=Gates(min_speed=0.0)))


def read(forged: Forged, digest: str) -> bytes:
    """An object."""
    return (forged.folder / OBJECTS / digest).read_bytes()


def golden_of(forged: Forged, name: str) -> GoldenSet:
    """The golden set of a variant."""
    return GoldenSet.decode(read(forged, manifest_of(forged, forged.release.variants[name]).golden.sha256))


def manifest_of(forged: Forged, variant: Variant) -> Manifest:
    """The manifest of a variant."""
    return Manifest.decode(read(forged, variant.manifest.sha256))


def inline_of(forged: Forged, name: str) -> bytes:
    """The single file of a variant."""
    inline = manifest_of(forged, forged.release.variants[name]).inline
    assert inline
    return assemble_inline(inline, read(forged, inline.skeleton.sha256), lambda digest: read(forged, digest))


def problems(golden: GoldenSet, session, device_class: str) -> list[str]:
    """Everything that fails, over all cases."""
    tolerance = golden.tolerance_for(device_class)
    found = []
    for case in golden.cases:
        names = list(case.outputs)
        found += compare(case.outputs, dict(zip(names, session.run(names, dict(case.inputs)), strict=True)), tolerance)
    return found


NAMES = ("fp32", "int8", "store_i8")


@pytest.mark.parametrize("name", NAMES)
def test_no_false_alarm_over_session_settings(release: Forged, name: str) -> None:
    """Threads, levels, precision, prepacking, denormals and both layouts all pass within the measured tolerance."""
    golden = golden_of(release, name)
    manifest = manifest_of(release, release.release.variants[name])
    objects = release.folder / OBJECTS
    whole = inline_of(release, name)
    extra = ({}, {"session.disable_prepacking": "1"}, {"session.set_denormal_as_zero": "1"})
    for level, threads, precise, more in itertools.product(LEVELS, (1, 2, 3), "01", extra):
        options = {"session.x64quantprecision": precise} | more
        outside = open_session(objects / manifest.skeleton.sha256, objects, options, level, threads)
        assert not problems(golden, outside, host_class()), (level, threads, options)
    assert not problems(golden, open_session(whole), host_class())


@pytest.mark.parametrize("name", NAMES)
def test_no_false_alarm_from_rounding(release: Forged, name: str) -> None:
    """Inputs moved by a rounding error, as another kernel would round, pass in 40 draws that were not used for the measurement."""
    golden = golden_of(release, name)
    session = open_session(inline_of(release, name))
    rng = np.random.default_rng(12345)
    for _ in range(40):
        for case in golden.cases:
            x = case.inputs["input"]
            feed = {"input": (x * (1 + 3e-7 * rng.uniform(-1, 1, x.shape))).astype(np.float32)}
            got = dict(zip(case.outputs, session.run(list(case.outputs), feed), strict=True))
            assert not compare(case.outputs, got, golden.tolerance_for(host_class()))


@pytest.mark.parametrize("device_class", [host_class(), "wasm"])
@pytest.mark.parametrize("name", NAMES)
def test_another_model_is_caught(release: Forged, other: Forged, name: str, device_class: str) -> None:
    """The same network from another seed fails, also by the wider guess for a class nobody measured."""
    session = open_session(inline_of(other, name))
    assert problems(golden_of(release, name), session, device_class)


@pytest.mark.parametrize("name", NAMES)
def test_damaged_weights_are_caught(release: Forged, name: str) -> None:
    """One flipped sign bit in one per cent of the weights of any tensor object is caught in 20 of 20 draws."""
    golden = golden_of(release, name)
    manifest = manifest_of(release, release.release.variants[name])
    model = onnx.load_model_from_string(inline_of(release, name))
    large = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) >= 400 and tensor.data_type in (1, 3)]
    assert manifest.objects and large
    rng = np.random.default_rng(0)
    for _ in range(20):
        tensor = large[rng.integers(len(large))]
        before = tensor.raw_data
        data = np.frombuffer(before, dtype=np.uint8).copy()
        width = 4 if tensor.data_type == 1 else 1
        chosen = rng.choice(len(data) // width, max(1, len(data) // width // 100), replace=False)
        data[chosen * width + width - 1] ^= 0x80
        tensor.raw_data = data.tobytes()
        assert problems(golden, open_session(model.SerializeToString()), host_class()), tensor.name
        tensor.raw_data = before


def test_variants_do_not_pass_for_each_other(release: Forged) -> None:
    """On the measured class golden vectors tell fp32 from its own quantized forms."""
    for mine, theirs in itertools.permutations(NAMES, 2):
        if mine != "int8":
            assert problems(golden_of(release, mine), open_session(inline_of(release, theirs)), host_class()), (mine, theirs)


def test_cases_cover_classes_and_confidences(release: Forged) -> None:
    """At least 16 cases over all ten classes, from doubtful to certain; only this machine's class is called measured."""
    golden = golden_of(release, "fp32")
    scores = np.concatenate([case.outputs["probabilities"] for case in golden.cases])
    assert len(golden.cases) >= 16 and len(set(scores.argmax(axis=1))) == 10
    assert scores.max(axis=1).min() < 0.6 and scores.max(axis=1).max() > 0.99
    assert golden.tolerances[host_class()].measured and not golden.tolerances["any"].measured
    assert golden.tolerances["any"].absolute_nano > golden.tolerances[host_class()].absolute_nano


def test_choice_takes_each_row_once() -> None:
    """Rows are distinct, and there are as many as asked for even when classes are lopsided."""
    scores = np.random.default_rng(0).random((500, 4)).astype(np.float32)
    scores[:, 0] += 5
    scores[:3, 1] += 50
    rows = choose({"p": scores}, 32)
    assert len(rows) == len(set(rows.tolist())) == 32 and set(scores[rows].argmax(axis=1)) == {0, 1}


def test_host_class_from_a_file(tmp_path: Path) -> None:
    """Flags are read from /proc/cpuinfo's first processor; without the file the cautious class is taken."""
    import platform

    if platform.machine() != "x86_64":
        pytest.skip("flags of another architecture")
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx2 avx_vnni\n")
    assert host_class(tmp_path / "cpuinfo") == "x86-vnni"
    assert host_class(tmp_path / "absent") == "x86-novnni"
