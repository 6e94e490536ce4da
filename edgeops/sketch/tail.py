"""Tail probabilities: chi-square by the incomplete gamma function, Fisher's exact one-sided test; and Benjamini-Hochberg."""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_TINY = 1e-300
_STEPS = 500


def _series(a: Floats, x: Floats) -> Floats:
    """P(a, x) * Gamma(a) / (x**a * exp(-x)) by its power series (Numerical Recipes 6.2.5), for x < a + 1."""
    term = 1.0 / a
    total = term.copy()
    for step in range(1, _STEPS):
        term = term * x / (a + step)
        total += term
        if (term <= total * 1e-16).all():
            break
    return total


def _fraction(a: Floats, x: Floats) -> Floats:
    """Q(a, x) * Gamma(a) / (x**a * exp(-x)) by Lentz's continued fraction (Numerical Recipes 6.2.7), for x >= a + 1."""
    b = x + 1.0 - a
    c = np.full_like(x, 1.0 / _TINY)
    d = 1.0 / b
    h = d.copy()
    for step in range(1, _STEPS):
        factor = -step * (step - a)
        b = b + 2.0
        d = factor * d + b
        d = 1.0 / np.where(np.abs(d) < _TINY, _TINY, d)
        c = b + factor / c
        c = np.where(np.abs(c) < _TINY, _TINY, c)
        delta = c * d
        h *= delta
        if (np.abs(delta - 1.0) < 1e-15).all():
            break
    return h


def chi2_sf(x: npt.ArrayLike, dof: npt.ArrayLike) -> Floats:
    """P(chi-square with `dof` degrees of freedom > x), broadcast, float64, never below 1e-300.

    `dof` may be any real number; where it is not positive there is nothing to test and the answer is 1.
    """
    stat, degrees = np.broadcast_arrays(np.asarray(x, dtype=np.float64), np.asarray(dof, dtype=np.float64))
    result = np.ones(stat.shape)
    live = (degrees > 0) & (stat > _TINY)
    a, half = degrees[live] / 2.0, stat[live] / 2.0
    if not a.size:
        return result
    shapes, where = np.unique(a, return_inverse=True)
    log_gamma = np.array([math.lgamma(value) for value in shapes])[where]
    front = np.exp(a * np.log(half) - half - log_gamma)
    low = half < a + 1.0
    tail = np.empty_like(a)
    if low.any():
        tail[low] = 1.0 - front[low] * _series(a[low], half[low])
    if not low.all():
        tail[~low] = front[~low] * _fraction(a[~low], half[~low])
    result[live] = np.clip(tail, _TINY, 1.0)
    return result


def excess_p(hits: int, size: int, reference_hits: int, reference_size: int) -> float:
    """Fisher's exact one-sided p: a sample of `size` shows `hits` or more, its reference `reference_hits` of `reference_size`.

    Exact, given the total of hits, when all rows are exchangeable (hypergeometric upper tail). When hits means "beyond the
    largest of the reference" it is C(n, k) / C(n+m, k), exact as well. 1 when the rate is not above the reference's.
    """
    if hits <= 0 or size <= 0 or reference_size <= 0 or hits * reference_size <= reference_hits * size:
        return 1.0
    total = hits + reference_hits
    term = math.exp(
        _log_choose(size, hits) + _log_choose(reference_size, reference_hits) - _log_choose(size + reference_size, total)
    )
    tail, k = term, hits
    while k < min(total, size) and term > tail * 1e-17:
        term *= (size - k) * (total - k) / ((k + 1) * (reference_size - total + k + 1))
        tail += term
        k += 1
    return min(1.0, max(tail, _TINY))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def benjamini_hochberg(p_values: npt.ArrayLike, q: float = 0.05) -> npt.NDArray[np.bool_]:
    """Which of the p-values, shape (devices,), to believe at false discovery rate `q` (Benjamini and Hochberg 1995)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    good = np.flatnonzero(p[order] <= q * np.arange(1, p.size + 1) / max(1, p.size))
    chosen = np.zeros(p.size, dtype=np.bool_)
    if good.size:
        chosen[order[: int(good[-1]) + 1]] = True
    return chosen
