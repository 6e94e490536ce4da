"""Two-sample tests of counts: pool sparse bins, then chi-square; how large a difference is and which way. K comparisons at once."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeops.sketch.probes import BINS, Floats

MIN_EXPECTED = 5.0
"""Cells expecting fewer rows on either side are pooled with their neighbours (Cochran's rule)."""


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


def effect_sizes(cells: Pooled) -> Floats:
    """PSI of the cells minus its bias under no drift, (B-1)(1/n+1/m) (03 section 3), (K,); half a row is added to each cell."""
    b = cells.cells
    here = np.arange(BINS) < b[:, None]
    n, m = (np.maximum(side.sum(axis=1), 1.0) for side in (cells.live, cells.reference))
    q = (cells.live + 0.5) / (n + 0.5 * b)[:, None]
    p = (cells.reference + 0.5) / (m + 0.5 * b)[:, None]
    psi = np.where(here, (q - p) * np.log(q / p), 0.0).sum(axis=1)
    return np.where(b > 1, psi - (b - 1) * (1.0 / n + 1.0 / m), 0.0)


def directions(live: Floats, reference: Floats) -> Floats:
    """Cliff's delta of ordered bins (K, 10): the chance that a live value exceeds a reference value minus the reverse, (K,)."""
    q, p = (side / np.maximum(side.sum(axis=1, keepdims=True), 1.0) for side in (live, reference))
    under = np.cumsum(p, axis=1) - p
    return np.asarray((q * (2.0 * under + p - p.sum(axis=1, keepdims=True))).sum(axis=1))
