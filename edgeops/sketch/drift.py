"""The drift scan: has the traffic of one device left its reference? Two-sample tests on merged windows of 1, 4, 16 and 64.

What is guaranteed. One `scan` is one look. With the level alpha / looks a look, spread by Bonferroni over probes x scales x 2
tests, the expected number of false alarms in `looks` looks is at most `alpha`, and so the chance of any is at most min(1, alpha).
The union bound needs no independence: looks may share windows, scales nest, probes may say the same thing.
The defaults, alpha 1 and 43,200 looks, mean at most one false warning per device in 30 days of one-minute windows.

On what conditions. (1) Live and reference rows are exchangeable when nothing drifted; consecutive rows that resemble each
other break that, so use the device's stride and a `Dispersion` learned from canaries. (2) The guarantee is an average over draws of
the reference: one unlucky reference warns on many devices at once. (3) The chi-square tail holds: the statistic is the smaller of
Pearson's X2 and the likelihood ratio G on cells that expect at least 5 rows, measured conservative down to p = 3e-6 (ten equal
bins, n 50 to 6,400, 3 million draws each); the range and missing tests are exact. Further out alpha is nominal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeops.sketch.probes import ABOVE, BELOW, BINS, MISSING, Counts, Floats, Probe
from edgeops.sketch.reference import ReferenceProfile
from edgeops.sketch.tail import chi2_sf, excess_p
from edgeops.sketch.window import SketchWindow
from edgeops.wire.errors import Misuse

SCALES = (1, 4, 16, 64)
DEFAULT_ALPHA = 1.0
DEFAULT_LOOKS = 43_200
MIN_ROWS = 50
"""A merged window with fewer rows is not tested."""
MIN_EXPECTED = 5.0
"""Cells expecting fewer rows on either side are pooled with their neighbours (Cochran's rule)."""


@dataclass(frozen=True, slots=True, eq=False)
class Dispersion:
    """How much more X2 varies on healthy windows than chi-square says, per probe (P,): X2 is like scale * chi2(dof / shape).

    Satterthwaite's approximation: with measured mean u * dof and variance v * 2 * dof, shape = v / u**2 and scale = u * shape, both
    at least 1. Learn it from canary windows with `learn_dispersion`.
    """

    scale: Floats
    shape: Floats


@dataclass(frozen=True, slots=True)
class Finding:
    """One probe at its worst scale: p_value is its own, before any correction.

    effect is PSI minus its bias (B-1)(1/n+1/m) for B cells, so 0 means no change at any n. direction in -1..1 is the chance that a
    live value exceeds a reference value minus the reverse (Cliff's delta), 0 for classes.
    cause: "shape", "above" (beyond the largest ever seen), "below" or "missing".
    """

    probe: Probe
    scale: int
    n: int
    cause: str
    p_value: float
    statistic: float
    dof: int
    effect: float
    direction: float


@dataclass(frozen=True, slots=True)
class DriftVerdict:
    """The outcome of one look: `alarm` is p_value <= threshold.

    p_value is corrected for probes, scales and tests of this look, and ready for Benjamini-Hochberg across devices; threshold is
    alpha / looks. scale: windows merged in the strongest finding, 0 if nothing could be tested; n its rows. probes: worst first.
    """

    alarm: bool
    p_value: float
    threshold: float
    scale: int
    n: int
    probes: tuple[Finding, ...]


def looks_in(horizon_s: float, period_s: float) -> int:
    """How many looks a horizon holds when a scan runs after each window of `period_s` seconds."""
    if not (horizon_s > 0 and period_s > 0):
        raise Misuse("horizon-range", "horizon and period are positive seconds")
    return max(1, int(np.ceil(horizon_s / period_s)))


@dataclass(frozen=True, slots=True, eq=False)
class Pooled:
    """Cells after pooling, rows of K comparisons: live and reference counts (K, 10), zero beyond `cells` (K,)."""

    live: Floats
    reference: Floats
    cells: npt.NDArray[np.int64]


def pool(live: Floats, reference: Floats, nominal: npt.NDArray[np.bool_]) -> Pooled:
    """Pool neighbouring bins (K, 10) until each cell expects 5 rows on both sides; where `nominal` (K,), largest bins first.

    Decided by live + reference only, which is the same under every relabelling of rows, so the choice does not favour drift.
    """
    total = live + reference
    order = np.where(nominal[:, None], np.argsort(-total, axis=1, kind="stable"), np.arange(BINS))
    total = np.take_along_axis(total, order, axis=1)
    sizes = live.sum(axis=1), reference.sum(axis=1)
    share = np.minimum(*sizes) / np.maximum(sizes[0] + sizes[1], 1.0)
    cell = np.zeros(total.shape, dtype=np.int64)
    current = np.zeros(len(total), dtype=np.int64)
    held = np.zeros(len(total))
    for j in range(BINS):
        held += total[:, j]
        cell[:, j] = current
        full = held * share >= MIN_EXPECTED
        current += full
        held[full] = 0.0
    cell = np.minimum(cell, np.maximum(current - 1, 0)[:, None])
    slot = (cell + BINS * np.arange(len(total))[:, None]).ravel()
    pooled = [
        np.zeros(total.size) + np.bincount(slot, weights=np.take_along_axis(side, order, axis=1).ravel(), minlength=total.size)
        for side in (live, reference)
    ]
    return Pooled(pooled[0].reshape(total.shape), pooled[1].reshape(total.shape), current)


def two_sample(cells: Pooled) -> tuple[Floats, npt.NDArray[np.int64]]:
    """The smaller of Pearson's X2 and the likelihood ratio G of a 2 x B table, and its B - 1 degrees of freedom; both (K,)."""
    total = cells.live + cells.reference
    size = total.sum(axis=1, keepdims=True)
    pearson = np.zeros(len(total))
    ratio = np.zeros(len(total))
    for side in (cells.live, cells.reference):
        expected = total * side.sum(axis=1, keepdims=True) / np.maximum(size, 1.0)
        safe = np.where(expected > 0, expected, 1.0)
        pearson += np.where(expected > 0, (side - expected) ** 2 / safe, 0.0).sum(axis=1)
        ratio += 2.0 * (side * np.log(np.where(side > 0, side / safe, 1.0))).sum(axis=1)
    dof = np.maximum(cells.cells - 1, 0)
    return np.where(dof > 0, np.maximum(np.minimum(pearson, ratio), 0.0), 0.0), dof


def scan(
    windows: Sequence[SketchWindow],
    reference: ReferenceProfile,
    alpha: float = DEFAULT_ALPHA,
    looks: int = DEFAULT_LOOKS,
    *,
    baseline: Counts | None = None,
    dispersion: Dispersion | None = None,
    top: int = 5,
) -> DriftVerdict:
    """Take one look at a device: `windows` in time order, oldest first, the last 64 count.

    alpha: false alarms allowed in expectation over `looks` looks (see the module). baseline (P, 13) replaces the reference's
    counts, to compare with healthy canary windows instead of the training reference. Windows that binned no rows are passed over.
    Raises `Misuse("profile-mismatch")` when a window was counted with another profile, `Misuse("alpha-range")`.
    """
    if not (alpha > 0 and looks >= 1):
        raise Misuse("alpha-range", f"alpha must be positive and looks at least 1, not {alpha} and {looks}")
    expected = reference.hash8
    if any(window.profile != expected for window in windows):
        raise Misuse("profile-mismatch", "a window was counted with another profile; scan it with its own reference")
    base = reference.counts if baseline is None else baseline
    recent = [window.tally.probes for window in windows if window.tally.n][-max(SCALES) :]
    sums = np.cumsum(np.stack(recent[::-1]), axis=0) if recent else np.zeros((0, *base.shape), dtype=np.int64)
    scales = [scale for scale in SCALES if scale <= len(sums)]
    scales = [scale for scale in scales if len(base) and sums[scale - 1][0, : MISSING + 1].sum() >= MIN_ROWS]
    threshold = alpha / looks
    if not scales:
        return DriftVerdict(False, 1.0, threshold, 0, 0, ())
    live = np.stack([sums[scale - 1] for scale in scales])
    findings = _findings(live, base, scales, reference.probes, dispersion, top)
    family = len(SCALES) * len(base) * 2
    best = findings[0]
    p_value = min(1.0, best.p_value * family)
    return DriftVerdict(p_value <= threshold, p_value, threshold, best.scale, best.n, findings)


def _findings(
    live: Counts, base: Counts, scales: list[int], probes: tuple[Probe, ...], dispersion: Dispersion | None, top: int
) -> tuple[Finding, ...]:
    """The strongest finding of each probe, strongest first; live (S, P, 13), base (P, 13)."""
    s, p = live.shape[:2]
    nominal = np.tile(np.array([probe.kind == "class" for probe in probes]), s)
    reference = np.broadcast_to(base, live.shape)
    cells = pool(
        live[:, :, :BINS].reshape(-1, BINS).astype(np.float64), reference[:, :, :BINS].reshape(-1, BINS).astype(np.float64), nominal
    )
    statistic, dof = two_sample(cells)
    scale = np.tile(dispersion.scale, s) if dispersion else np.ones(s * p)
    shape = np.tile(dispersion.shape, s) if dispersion else np.ones(s * p)
    shape_p = chi2_sf(statistic / scale, dof / shape)
    tail_p, cause = _tails(live, base, scale * shape)
    own = np.minimum(shape_p, tail_p.ravel()).reshape(s, p)
    worst = own.argmin(axis=0)
    found = []
    for j in sorted(range(p), key=lambda j: (own[worst[j], j], -statistic[worst[j] * p + j]))[:top]:
        i = int(worst[j])
        k = i * p + j
        by_tail = tail_p[i, j] < shape_p[k]
        n = int(live[i, j, : MISSING + 1].sum())
        effect, direction = _effect(cells, k), 0.0 if nominal[k] else _direction(live[i, j], base[j])
        found.append(
            Finding(
                probes[j], scales[i], n, cause[i][j] if by_tail else "shape", float(own[i, j]), float(statistic[k]), int(dof[k]),
                effect, direction,
            )
        )
    return tuple(found)


def _tails(live: Counts, base: Counts, inflation: Floats) -> tuple[Floats, list[list[str]]]:
    """Exact one-sided p of more rows above, below or missing, times 3, (S, P), and which of the three it was."""
    p_values = np.ones(live.shape[:2])
    causes = [["shape"] * live.shape[1] for _ in range(live.shape[0])]
    thin = inflation.reshape(live.shape[:2])
    sizes, base_sizes = live[:, :, : MISSING + 1].sum(axis=2), base[:, : MISSING + 1].sum(axis=1)
    for column, cause in ((ABOVE, "above"), (BELOW, "below"), (MISSING, "missing")):
        above_rate = live[:, :, column] * base_sizes > base[:, column] * sizes
        for i, j in np.argwhere(above_rate).tolist():
            hits, n = int(live[i, j, column] / thin[i, j]), int(sizes[i, j] / thin[i, j])
            p = 3.0 * excess_p(hits, n, int(base[j, column]), int(base_sizes[j]))
            if p < p_values[i, j]:
                p_values[i, j] = p
                causes[i][j] = cause
    return p_values, causes


def _effect(cells: Pooled, k: int) -> float:
    """PSI of pooled cells (half a row added to each) minus its bias under no drift, (B-1)(1/n+1/m) (03 section 3)."""
    b = int(cells.cells[k])
    if b < 2:
        return 0.0
    live, reference = cells.live[k, :b], cells.reference[k, :b]
    q, p = (live + 0.5) / (live.sum() + 0.5 * b), (reference + 0.5) / (reference.sum() + 0.5 * b)
    bias = (b - 1) * (1.0 / live.sum() + 1.0 / reference.sum())
    return float(((q - p) * np.log(q / p)).sum() - bias)


def _direction(live: Counts, base: Counts) -> float:
    """Cliff's delta from ten ordered bins, ties counting half each way."""
    q, p = live[:BINS] / max(1, live[:BINS].sum()), base[:BINS] / max(1, base[:BINS].sum())
    under = np.concatenate(([0.0], np.cumsum(p)[:-1]))
    return float((q * (under - (p.sum() - under - p))).sum())


def learn_dispersion(windows: Sequence[SketchWindow], reference: ReferenceProfile) -> Dispersion:
    """Learn a `Dispersion` from healthy windows of one device or cohort; each window is compared with all others together.

    Needs 30 windows of 50 rows or more (100 are better), else `Misuse("too-few-windows")`.
    """
    stack = [window.tally.probes for window in windows if window.tally.n >= MIN_ROWS]
    if len(stack) < 30:
        raise Misuse("too-few-windows", f"{len(stack)} healthy windows of {MIN_ROWS} rows are too few to learn from; wait for 30")
    table = np.stack(stack)[:, :, :BINS].astype(np.float64)
    s, p = table.shape[:2]
    others = table.sum(axis=0, keepdims=True) - table
    nominal = np.tile(np.array([probe.kind == "class" for probe in reference.probes]), s)
    statistic, dof = two_sample(pool(table.reshape(-1, BINS), others.reshape(-1, BINS), nominal))
    degrees = np.maximum(dof.reshape(s, p), 1)
    x = statistic.reshape(s, p)
    u = np.maximum((x / degrees).mean(axis=0), 1e-9)
    v = (x / np.sqrt(2.0 * degrees)).var(axis=0, ddof=1)
    shape = np.maximum(v / u**2, 1.0)
    return Dispersion(np.maximum(u * shape, 1.0), shape)
