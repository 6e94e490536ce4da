"""Golden vectors: cases over all classes and confidences, and tolerances measured over the ways a device may run the same bytes."""

import itertools
import math
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from edgeops.wire.device_class import ANY, classify
from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.golden import GoldenCase, GoldenSet, Tolerance

from .runtime import LEVELS, PENULTIMATE, batch_of, inputs_of, labels_from, open_session, run_rows, scores_name

Array = npt.NDArray[Any]
CASES = 32
MIN_CASES = 16
BIG_ROW = 64 << 10
SAFETY = 8.0
GUESS = 8.0
JITTER = 3e-6
JITTERS = 8
LOOSE = 0.2
RELATIVE_PPM = 100
PRECISION = "session.x64quantprecision"


def host_class(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Device class of this machine from its CPU flags; without them the cautious one of its architecture."""
    flags: list[str] = []
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip().lower() in {"flags", "features"}:
                flags = value.split()
                break
    return classify(platform.machine(), flags)


def choose(outputs: Mapping[str, Array], count: int, seed: int = 0) -> Array:
    """Row numbers (at most `count`) spread over predicted classes and, within each, evenly from the least to the most confident."""
    scores = outputs[scores_name(outputs)]
    n = len(scores)
    labels = labels_from(outputs)
    if labels is None:
        flat = scores.reshape(n, -1).astype(np.float64).mean(axis=1)
        spaced = np.unique(np.linspace(0, n - 1, min(count, n)).astype(int))
        return np.asarray(np.argsort(flat, kind="stable")[spaced])
    confidence = scores.reshape(n, -1).max(axis=1)
    order = np.random.default_rng(seed).permutation(n)
    groups = []
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        rows = rows[np.argsort(confidence[rows], kind="stable")]
        share = max(1, math.ceil(count / len(np.unique(labels))))
        groups.append(rows[np.unique(np.linspace(0, len(rows) - 1, min(share, len(rows))).round().astype(int))])
    mixed = [row for turn in itertools.zip_longest(*groups) for row in turn if row is not None]
    chosen = list(dict.fromkeys(mixed))[:count]
    rest = (row for row in order if row not in set(chosen))
    return np.array(chosen + list(itertools.islice(rest, max(0, min(count, n) - len(chosen)))), dtype=np.int64)


def make_golden(
    skeleton: Path, objects: Path, options: Mapping[str, str], x: Array, quantized: bool, seed: int = 0
) -> GoldenSet:
    """Cases from rows x (n, ...) with the outputs of these bytes here, and the tolerance of this device class and of `any`.

    Raises Misuse("too-few-rows"), Rejected("golden-too-loose") when settings alone move the outputs too far to check.
    """
    session = open_session(skeleton, objects, options)
    signature = inputs_of(session)[0]
    group = batch_of(signature) or 1
    outputs = run_rows(session, x)
    count = CASES if x[:1].nbytes * group <= BIG_ROW else MIN_CASES
    if len(x) < MIN_CASES * group:
        raise Misuse("too-few-rows", f"golden vectors need at least {MIN_CASES * group} evaluation rows, there are {len(x)}")
    rows = x[choose(outputs, count * group, seed)]
    names = [name for name in outputs if name != PENULTIMATE]
    feeds = [{signature.name: np.ascontiguousarray(rows[at : at + group])} for at in range(0, len(rows) // group * group, group)]
    cases = tuple(GoldenCase(feed, dict(zip(names, session.run(names, feed), strict=True))) for feed in feeds)
    if not all(np.isfinite(value).all() for case in cases for value in case.outputs.values()):
        raise Rejected("not-finite", "the model gives outputs that are not finite for evaluation rows")
    apart = max(_spread(skeleton, objects, options, cases), _sway(session, cases, seed))
    return GoldenSet(cases, _tolerances(cases, apart, quantized))


def _spread(skeleton: Path, objects: Path, options: Mapping[str, str], cases: tuple[GoldenCase, ...]) -> float:
    """The largest deviation of any float output over threads, optimisation levels and quantization precision."""
    apart = 0.0
    for level, threads, precise in itertools.product(LEVELS, (1, 2), ("0", "1")):
        session = open_session(skeleton, objects, dict(options) | {PRECISION: precise}, level, threads)
        for case in cases:
            names = list(case.outputs)
            apart = max(apart, _deviation(case, dict(zip(names, session.run(names, dict(case.inputs)), strict=True))))
    return apart


def _sway(session: ort.InferenceSession, cases: tuple[GoldenCase, ...], seed: int) -> float:
    """The largest deviation when float inputs move by about a rounding error.

    Another kernel of the same class rounds differently; in a quantized model that can carry an activation over the edge of its
    step, which moves the output by far more than the rounding itself, and which the settings of one machine rarely show.
    """
    rng, apart = np.random.default_rng(seed), 0.0
    for case, _ in itertools.product(cases, range(JITTERS)):
        feed = {
            name: (value * (1 + JITTER * rng.uniform(-1, 1, value.shape))).astype(value.dtype) if value.dtype.kind == "f" else value
            for name, value in case.inputs.items()
        }
        names = list(case.outputs)
        apart = max(apart, _deviation(case, dict(zip(names, session.run(names, feed), strict=True))))
    return apart


def _deviation(case: GoldenCase, got: Mapping[str, Array]) -> float:
    floats = [(want, got[name]) for name, want in case.outputs.items() if want.dtype.kind == "f"]
    return max(float(np.max(np.abs(want.astype(np.float64) - have.astype(np.float64)), initial=0.0)) for want, have in floats)


def _tolerances(cases: tuple[GoldenCase, ...], apart: float, quantized: bool) -> dict[str, Tolerance]:
    """SAFETY times what was measured here; for `any` GUESS times that, at least 1e-4 (quantized: 1e-2) of the largest output."""
    floats = [value for case in cases for value in case.outputs.values() if value.dtype.kind == "f"]
    scale = max(float(np.abs(value).max(initial=0.0)) for value in floats)
    here = max(SAFETY * apart, 1e-6 * max(scale, 1e-6))
    guess = max(GUESS * here, (1e-2 if quantized else 1e-4) * scale)
    if here > LOOSE * scale:
        raise Rejected(
            "golden-too-loose",
            f"session settings alone move the outputs by {apart:.3g} of {scale:.3g}; golden vectors could not tell models apart",
        )
    return {
        host_class(): _tolerance(here, scale, RELATIVE_PPM, measured=True),
        ANY: _tolerance(min(guess, LOOSE * scale), scale, 10 * RELATIVE_PPM, measured=False),
    }


def _tolerance(absolute: float, scale: float, relative_ppm: int, measured: bool) -> Tolerance:
    """Two scores may each move by the whole tolerance, so the top-1 is certain only beyond twice that margin."""
    margin = 2 * (absolute + scale * relative_ppm / 1e6)
    return Tolerance(math.ceil(absolute * 1e9), relative_ppm, math.ceil(margin * 1e6), measured)
