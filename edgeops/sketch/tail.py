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


def log_gamma(x: Floats) -> Floats:
    """ln Gamma(x) for x > 0: Stirling's series at x + 10, then down by the recurrence; absolute error about 1e-15 * |result|."""
    y = x + 10.0
    product = np.ones_like(x)
    for step in range(10):
        product = product * (x + step) / y
    inverse = 1.0 / (y * y)
    series = (1 / 12 - inverse * (1 / 360 - inverse * (1 / 1260 - inverse * (1 / 1680 - inverse / 1188)))) / y
    return np.asarray((y - 0.5) * np.log(y) - y + 0.5 * math.log(2.0 * math.pi) + series - np.log(product) - 10.0 * np.log(y))


def chi2_sf(x: npt.ArrayLike, dof: npt.ArrayLike) -> Floats:
    """P(chi-square with `dof` degrees of freedom > x), broadcast, float64, never below 1e-300.

    `dof` may be any real number; where it is not positive there is nothing to test and the answer is 1.
    """
    stat, degrees = np.broadcast_arrays(np.asarray(x, dtype=np.float64), np.asarray(dof, dtype=np.float64))
    result = np.ones(stat.shape)
    live = (degrees > 0) & (stat > 0)
    a, half = degrees[live] / 2.0, np.maximum(stat[live] / 2.0, _TINY)
    if not a.size:
        return result
    front = np.exp(a * np.log(half) - half - log_gamma(a))
    low = half < a + 1.0
    tail = np.empty_like(a)
    if low.any():
        tail[low] = 1.0 - front[low] * _series(a[low], half[low])
    if not low.all():
        tail[~low] = front[~low] * _fraction(a[~low], half[~low])
    result[live] = np.clip(tail, _TINY, 1.0)
    return result


def excess_p(
    hits: npt.ArrayLike, size: npt.ArrayLike, reference_hits: npt.ArrayLike, reference_size: npt.ArrayLike
) -> Floats:
    """Fisher's exact one-sided p, broadcast: a sample of `size` rows shows `hits` or more, its reference `reference_hits`.

    Exact, given the total of hits, when all rows are exchangeable (hypergeometric upper tail). When hits means "beyond the
    largest of the reference" it is C(n, k) / C(n+m, k), exact as well. 1 where the rate is not above the reference's.
    """
    given = (np.asarray(x, dtype=np.float64) for x in (hits, size, reference_hits, reference_size))
    k, n, r, m = np.broadcast_arrays(*given)
    result = np.ones(k.shape)
    live = (k > 0) & (m > 0) & (k * m > r * n)
    k, n, r, m = k[live], n[live], r[live], m[live]
    if not k.size:
        return result
    total = k + r
    term = np.exp(_log_choose(n, k) + _log_choose(m, r) - _log_choose(n + m, total))
    tail = term.copy()
    while ((k < np.minimum(total, n)) & (term > tail * 1e-17)).any():
        term = term * np.maximum((n - k) * (total - k), 0.0) / ((k + 1.0) * np.maximum(m - total + k + 1.0, 1.0))
        tail += term
        k = k + 1.0
    result[live] = np.clip(tail, _TINY, 1.0)
    return result


def _log_choose(n: Floats, k: Floats) -> Floats:
    return log_gamma(n + 1.0) - log_gamma(k + 1.0) - log_gamma(n - k + 1.0)


def benjamini_hochberg(p_values: npt.ArrayLike, q: float = 0.05) -> npt.NDArray[np.bool_]:
    """Which of the p-values, shape (devices,), to believe at false discovery rate `q` (Benjamini and Hochberg 1995)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    good = np.flatnonzero(p[order] <= q * np.arange(1, p.size + 1) / max(1, p.size))
    chosen = np.zeros(p.size, dtype=np.bool_)
    if good.size:
        chosen[order[: int(good[-1]) + 1]] = True
    return chosen
