"""Probes: scalars of one inference, counted in ten bins cut at the reference's deciles.

A count row has 13 columns: ten bins, then `missing` (not finite), `below` (under the reference's smallest value) and `above` (over
its largest). Bins and missing add up to the number of rows; below and above are also inside the first and last bin.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgeops.wire.errors import Misuse

BINS = 10
MISSING, BELOW, ABOVE = 10, 11, 12
COLUMNS = 13
MAX_PROBES = 32
FOLD = 128
"""A space wider than this is first averaged over equal runs of neighbours, down to at most this many numbers."""

Kind = Literal[
    "feature", "input-mean", "input-std", "input-edge", "projection", "mahalanobis", "pca-residual", "class", "confidence", "output"
]
Source = Literal["input", "penultimate", "output"]
KINDS: tuple[Kind, ...] = (
    "feature", "input-mean", "input-std", "input-edge",
    "projection", "mahalanobis", "pca-residual",
    "class", "confidence", "output",
)  # fmt: skip
SOURCES: tuple[Source, ...] = ("input", "penultimate", "output")
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Reals = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Probe:
    """One scalar: `index` picks the column of a feature, an output or a projection and is 0 for the other kinds."""

    name: str
    kind: Kind
    source: Source
    index: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """How to look at a vector of `size` numbers, folded to d: fitted once on reference rows, then fixed.

    mean (d,) float32; directions (d, k) float16, unit columns: whitened random projections, that is inv-sqrt(covariance) times a
    random orthonormal basis; basis (d, r) float16: leading principal components; spread (r,) float32: their standard deviations.
    """

    size: int
    mean: npt.NDArray[np.floating]
    directions: npt.NDArray[np.floating]
    basis: npt.NDArray[np.floating]
    spread: npt.NDArray[np.floating]

    def look(self, rows: npt.NDArray[np.generic]) -> tuple[Floats, Floats, Floats]:
        """Projections (n, k), Mahalanobis norm (n,) within the basis, residual norm (n,) outside it; rows (n, size)."""
        centred = fold(rows) - self.mean.astype(np.float64)
        inside = centred @ self.basis.astype(np.float64)
        norm = np.sqrt(((inside / self.spread.astype(np.float64)) ** 2).sum(axis=1))
        left = np.maximum((centred**2).sum(axis=1) - (inside**2).sum(axis=1), 0.0)
        return centred @ self.directions.astype(np.float64), norm, np.sqrt(left)


def fold(rows: npt.NDArray[np.generic]) -> Floats:
    """Rows (n, size) as float64 (n, d), d <= 128: averages over runs of ceil(size/128) neighbours (the last run may be shorter)."""
    size = rows.shape[1]
    if size <= FOLD:
        return rows.astype(np.float64)
    starts = np.arange(0, size, -(-size // FOLD))
    lengths = np.diff(np.append(starts, size))
    sums: Floats = np.add.reduceat(rows, starts, axis=1, dtype=np.float64)
    return sums / lengths


def fit_space(rows: npt.NDArray[np.generic], projections: int, components: int, seed: int) -> Space:
    """Fit a `Space` to reference rows (n, size), finite; `seed` draws the random directions (03 section 4: whitened beats plain).

    The covariance gets a ridge of 1e-3 of its mean eigenvalue, so a dead column becomes a sensitive direction, not an infinite one.
    """
    folded = fold(rows)
    width = folded.shape[1]
    mean = folded.mean(axis=0)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(folded, rowvar=False)))
    values = np.maximum(values[::-1], 0.0)
    vectors = vectors[:, ::-1]
    ridge = 1e-3 * float(values.mean()) or 1.0
    directions = np.zeros((width, 0))
    k = min(projections, width)
    if k:
        random, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((width, k)))
        directions = (vectors / np.sqrt(values + ridge)) @ random
        directions /= np.linalg.norm(directions, axis=0)
    r = min(components, width, max(1, folded.shape[0] // 10))
    spread = np.maximum(np.sqrt(values[:r] + ridge), 1e-30)
    return Space(
        rows.shape[1], mean.astype("<f4"), directions.astype("<f2"), vectors[:, :r].astype("<f2"), spread.astype("<f4")
    )


def edge_energy(inputs: npt.NDArray[np.generic]) -> Floats:
    """Mean absolute difference of neighbours per row, (n,), along the last axis and, from rank 3 on, the one before it."""
    x = inputs if inputs.dtype in (np.float32, np.float64) else inputs.astype(np.float32)
    axes = [-1] if x.ndim < 3 else [-1, -2]
    energy = np.zeros(x.shape[0])
    for axis in axes:
        if x.shape[axis] > 1:
            steps = np.abs(np.diff(x, axis=axis))
            energy += steps.reshape(x.shape[0], -1).mean(axis=1, dtype=np.float64)
    return energy


def binned(values: Floats, edges: Reals, low: Reals, high: Reals) -> Counts:
    """Count values (n, P) into rows (P, 13); bin j holds edge[j-1] < value <= edge[j]. edges (P, 9), low and high (P,)."""
    rows, probes = values.shape
    counts = np.zeros((probes, COLUMNS), dtype=np.int64)
    if rows == 0 or probes == 0:
        return counts
    finite = np.isfinite(values)
    column = (values[:, :, None] > edges[None]).sum(axis=2)
    column[~finite] = MISSING
    flat = np.bincount((column + COLUMNS * np.arange(probes)).ravel(), minlength=probes * COLUMNS)
    counts += flat.reshape(probes, COLUMNS)
    counts[:, BELOW] = (finite & (values < low)).sum(axis=0)
    counts[:, ABOVE] = (finite & (values > high)).sum(axis=0)
    return counts


def cut_points(values: Floats) -> tuple[Floats, float, float]:
    """Nine edges at the deciles of the finite reference values (n,), and the range (low, high) that is not unusual.

    Edges lie halfway between neighbouring distinct values, never on one: a value many rows share must not change its bin by the
    rounding of another processor. Values closer than 1e-6 of the range count as one, and the range is widened by as much.
    """
    ordered = np.sort(values[np.isfinite(values)])
    if not ordered.size:
        return np.zeros(BINS - 1), 0.0, 0.0
    low, high = float(ordered[0]), float(ordered[-1])
    slack = max(1e-6 * (high - low), 1e-6 * max(abs(low), abs(high)), 1e-12)
    with np.errstate(over="ignore"):
        gaps = np.flatnonzero(np.diff(ordered) > slack)
    edges = np.full(BINS - 1, high + slack)
    for j in range(1, BINS):
        at = np.searchsorted(gaps, round(j * ordered.size / BINS) - 1)
        if at < gaps.size:
            i = int(gaps[at])
            edges[j - 1] = (ordered[i] + ordered[i + 1]) / 2.0
    return edges, low - slack, high + slack


def share_classes(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Which of ten bins each class (k,) is counted in: its own up to ten classes, else shared so that the bins are equally full."""
    if counts.size <= BINS:
        return np.arange(counts.size, dtype=np.uint8)
    load = np.zeros(BINS)
    bins = np.zeros(counts.size, dtype=np.uint8)
    for label in np.argsort(-counts, kind="stable"):
        target = int(np.argmin(load))
        bins[label] = target
        load[target] += counts[label] + 1e-3
    return bins


def stride_for(values: Floats) -> int:
    """The stride (1, 2, 5, 10 or 25) that makes consecutive rows of probe values (n, P) nearly independent.

    Takes the third largest lag-1 autocorrelation rho of the probes and the smallest stride with rho**stride <= 0.35: with that,
    an AR(1) stream of rho = 0.9 kept a nominal 1 % at 1.1 % (03 section 3). Fewer than 50 rows give 1.
    """
    good = values[:, np.isfinite(values).all(axis=0)]
    if good.shape[0] < 50 or not good.shape[1]:
        return 1
    centred = good - good.mean(axis=0)
    energy = (centred**2).sum(axis=0)
    rho = (centred[1:] * centred[:-1]).sum(axis=0) / np.where(energy > 0, energy, 1.0)
    third = float(np.sort(rho)[-min(3, rho.size)])
    return next((stride for stride in (1, 2, 5, 10) if max(third, 0.0) ** stride <= 0.35), 25)


def as_rows(array: npt.NDArray[np.generic], what: str) -> npt.NDArray[np.generic]:
    """Flatten (n, ...) of numbers to (n, size); raises `Misuse` on no rows' axis, no columns or not numbers."""
    if array.ndim < 1 or not (np.issubdtype(array.dtype, np.number) or array.dtype == np.bool_):
        raise Misuse("batch-malformed", f"{what} must be real numbers with a batch axis, not {array.dtype} {array.shape}")
    return array.reshape(array.shape[0], -1) if array.shape[0] else array.reshape(0, int(np.prod(array.shape[1:])))
