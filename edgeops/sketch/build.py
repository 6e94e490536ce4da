"""Builds a reference profile from rows the model has not been trained on."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgeops.sketch.probes import (
    BINS,
    COLUMNS,
    MAX_PROBES,
    Counts,
    Floats,
    Probe,
    Reals,
    Source,
    Space,
    as_rows,
    binned,
    cut_points,
    fit_space,
    share_classes,
)
from edgeops.sketch.reference import ReferenceProfile
from edgeops.wire.errors import Misuse

MIN_ROWS = 200
"""Fewer reference rows cannot hold ten bins apart; 5,000 or more are advised, 20,000 preferred (03 section 4b)."""
FIT_SHARE = 0.25
FIT_LIMIT = 1e18
"""Rows with larger or non-finite numbers fit no space: their squares would leave float32."""
PROJECTIONS = 8
COMPONENTS = 20
FEATURES = 16
WIDEST = 3e38
Array = npt.NDArray[np.generic]


def build_reference(
    inputs: Array,
    outputs: Array | None = None,
    penultimate: Array | None = None,
    *,
    seed: int,
    feature_names: Sequence[str] = (),
    features: Sequence[int] | None = None,
) -> ReferenceProfile:
    """Make the profile of (n, ...) inputs, (n, k) outputs and (n, d) penultimate activations, any real dtype, n >= 200.

    Use held-out rows: a model is too confident on its training rows. k >= 2 is read as one score per class (class
    and confidence probes), k = 1 as a plain number. Rank-2 inputs also get up to 16 feature probes: `features`, or the columns that
    vary most. A random quarter of the rows (drawn by `seed`) fits projections, principal components and class groups; the other
    three quarters count them, because rows look nearer to what was fitted on them than new rows ever will.
    Raises `Misuse("reference-too-small")`, `Misuse("batch-malformed")`.
    """
    flat = as_rows(inputs, "inputs")
    n = flat.shape[0]
    if n < MIN_ROWS or not flat.shape[1]:
        raise Misuse("reference-too-small", f"a reference needs at least {MIN_ROWS} rows of numbers, not {flat.shape}; give more")
    fitting = np.zeros(n, dtype=np.bool_)
    fitting[np.random.default_rng(seed).permutation(n)[: max(50, int(n * FIT_SHARE))]] = True
    input_space = _space(flat, fitting, seed)
    inner = None if penultimate is None else as_rows(penultimate, "penultimate")
    inner_space = None if inner is None else _space(inner, fitting, seed + 1)
    scores = np.zeros((n, 0)) if outputs is None else as_rows(outputs, "outputs").astype(np.float64)
    k = scores.shape[1]
    class_bins, class_counts = _classes(scores, fitting)
    probes = _common(k, input_space, inner_space)
    if inputs.ndim == 2:
        chosen = _chosen(flat[fitting].astype(np.float64), features, min(FEATURES, MAX_PROBES - len(probes)))
        probes = [Probe(_name(feature_names, i), "feature", "input", i) for i in chosen] + probes
    blank = _blank(len(probes))
    draft = ReferenceProfile(inputs.shape[1:], k, tuple(probes), *blank, class_bins, class_counts, input_space, inner_space)
    return _counted(draft, draft.values(inputs, outputs, penultimate), fitting)


def _blank(p: int) -> tuple[Reals, Reals, Reals, Counts]:
    """Edges, low, high and counts of p probes before they are counted."""
    low, high = np.zeros((2, p), dtype="<f4")
    return np.zeros((p, BINS - 1), dtype="<f4"), low, high, np.zeros((p, COLUMNS), dtype=np.int64)


def _counted(draft: ReferenceProfile, values: Floats, fitting: npt.NDArray[np.bool_]) -> ReferenceProfile:
    """Cut and count every probe on the rows it was not fitted on."""
    edges, low, high, counts = draft.edges.copy(), draft.low.copy(), draft.high.copy(), draft.counts.copy()
    for j, probe in enumerate(draft.probes):
        fitted = probe.kind in ("feature", "projection", "mahalanobis", "pca-residual", "class")
        column = values[~fitting, j] if fitted else values[:, j]
        classes: tuple[Floats, float, float] = (np.arange(0.5, BINS - 1, dtype=np.float64), 0.0, BINS - 1.0)
        cuts, least, most = classes if probe.kind == "class" else cut_points(column)
        edges[j], low[j], high[j] = np.clip(cuts, -WIDEST, WIDEST), max(least, -WIDEST), min(most, WIDEST)
        counts[j] = binned(column[:, None], edges[j : j + 1], low[j : j + 1], high[j : j + 1])[0]
    return replace(draft, edges=edges, low=low, high=high, counts=counts)


def _space(flat: Array, fitting: npt.NDArray[np.bool_], seed: int) -> Space | None:
    rows = flat[fitting]
    rows = rows[(np.abs(rows.astype(np.float64)) < FIT_LIMIT).all(axis=1)]
    return fit_space(rows, PROJECTIONS, COMPONENTS, seed) if rows.shape[0] >= 30 else None


def _classes(scores: Floats, fitting: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Class bins from the fitting rows, class counts from all; empty below two classes."""
    k = scores.shape[1]
    if k < 2:
        return np.zeros(0, dtype=np.uint8), np.zeros(0, dtype=np.int64)
    labels = scores.argmax(axis=1)
    return share_classes(np.bincount(labels[fitting], minlength=k)), np.bincount(labels, minlength=k).astype(np.int64)


def _common(k: int, input_space: Space | None, inner_space: Space | None) -> list[Probe]:
    """The probes every model of this form gets."""
    probes = [Probe(kind, kind, "input") for kind in ("input-mean", "input-std", "input-edge")]
    pairs: tuple[tuple[Source, Space | None], ...] = (("input", input_space), ("penultimate", inner_space))
    for source, space in pairs:
        if space is None:
            continue
        probes += [Probe(f"{source}-projection-{i}", "projection", source, i) for i in range(space.directions.shape[1])]
        if source == "penultimate" or inner_space is None:
            probes.append(Probe(f"{source}-mahalanobis", "mahalanobis", source))
        if source == "input" and space.basis.shape[1] < space.mean.size:
            probes.append(Probe(f"{source}-pca-residual", "pca-residual", source))
    if k >= 2:
        return [*probes, Probe("class", "class", "output"), Probe("confidence", "confidence", "output")]
    return [*probes, Probe("output", "output", "output")] if k else probes


def _chosen(rows: Floats, features: Sequence[int] | None, room: int) -> list[int]:
    if features is not None:
        if len(features) > room or any(not 0 <= i < rows.shape[1] for i in features):
            raise Misuse("batch-malformed", f"features must be at most {room} column numbers below {rows.shape[1]}")
        return list(features)
    spread = np.where(np.abs(rows) < FIT_LIMIT, rows, 0.0).var(axis=0)
    return sorted(int(i) for i in np.argsort(-spread, kind="stable")[:room])


def _name(names: Sequence[str], index: int) -> str:
    return names[index] if index < len(names) else f"feature-{index}"
