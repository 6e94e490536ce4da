"""Measuring a variant on the exact bytes to be signed: accuracy, agreement with fp32, signal to noise, latency."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from .runtime import batch_of, inputs_of, labels_from, scores_name

Array = npt.NDArray[Any]
Z = 1.6449  # one-sided 95 %
ROUNDS = 60
BLOCK_SECONDS = 1e-3
MAX_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Quality:
    """Against labels and against fp32. Shares are 0..1; `n` rows; None where there are no labels or classes.

    accuracy_low..accuracy_high: Wilson interval. drop = accuracy(fp32) - accuracy, drop_high its upper bound.
    sqnr_db: signal to quantization noise of the scores.
    """

    n: int
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    drop: float | None
    drop_high: float | None
    agreement: float | None
    agreement_low: float | None
    sqnr_db: float


@dataclass(frozen=True, slots=True)
class Latency:
    """One row, one thread: p50 and p95 in microseconds, `ratio` = fp32 time / variant time (median of pairs), and its quartiles."""

    p50_us: float
    p95_us: float
    ratio: float
    ratio_low: float
    ratio_high: float

    @property
    def steady(self) -> bool:
        """Whether the quartiles of the paired ratio are within a quarter of the median."""
        return self.ratio_high - self.ratio_low <= 0.25 * self.ratio


def wilson(hits: int, n: int, z: float = Z) -> tuple[float, float]:
    """Wilson's score interval for a share of `hits` in `n` (E. B. Wilson, JASA 22, 1927)."""
    if n == 0:
        return 0.0, 1.0
    share, square = hits / n, z * z
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = z / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def drop_bound(lost: int, won: int, n: int, z: float = Z) -> float:
    """Upper bound of the paired accuracy drop (lost - won) / n, where `lost` rows only fp32 has right and `won` only the variant.

    Agresti and Min's adjusted interval for matched pairs (Statistics in Medicine 24, 2005): half a count is added to each cell.
    """
    b, c, total = lost + 0.5, won + 0.5, n + 2
    spread = math.sqrt(max(b + c - (b - c) ** 2 / total, 0.0)) / total
    return (b - c) / total + z * spread


def quality(outputs: Mapping[str, Array], plain: Mapping[str, Array], y: Array | None) -> Quality:
    """Judge `outputs` of a variant against those of fp32 on the same rows and against labels y (n,) or None."""
    name = scores_name(plain)
    want, have = plain[name].astype(np.float64), outputs[name].astype(np.float64)
    noise, signal = float(np.mean((want - have) ** 2)), float(np.mean(want**2))
    sqnr = 200.0 if noise == 0 else 10 * math.log10(max(signal, 1e-300) / noise) if np.isfinite(noise) else -200.0
    mine, theirs = labels_from(outputs), labels_from(plain)
    n = len(want)
    if mine is None or theirs is None:
        return Quality(n, None, None, None, None, None, None, None, sqnr)
    same = int(np.count_nonzero(mine == theirs))
    agreement = same / n, wilson(same, n)[0]
    if y is None:
        return Quality(n, None, None, None, None, None, *agreement, sqnr)
    right, before = mine == y, theirs == y
    hits, lost, won = int(right.sum()), int((before & ~right).sum()), int((right & ~before).sum())
    bound = 0.0 if mine is theirs or not (mine != theirs).any() else drop_bound(lost, won, n)
    return Quality(n, hits / n, *wilson(hits, n), (lost - won) / n, bound, *agreement, sqnr)


def latency(sessions: Sequence[ort.InferenceSession], x: Array, seed: int = 0) -> list[Latency]:
    """Time all sessions interleaved in random order, the first being fp32; one row of x (or the model's fixed batch) a run."""
    signature = inputs_of(sessions[0])[0]
    rows = batch_of(signature) or 1
    feeds = [{signature.name: x[at : at + rows]} for at in range(0, min(len(x), 32 * rows) // rows * rows, rows)]
    feeds = feeds or [{signature.name: np.repeat(x[:1], rows, axis=0)}]
    repeats = _repeats(sessions, feeds[0])
    rng = np.random.default_rng(seed)
    times = np.zeros((ROUNDS, len(sessions)))
    deadline, done = time.perf_counter() + MAX_SECONDS * len(sessions), 0
    for turn in range(ROUNDS):
        for i in rng.permutation(len(sessions)):
            times[turn, i] = _timed(sessions[i], feeds, repeats, turn)
        done = turn + 1
        if time.perf_counter() > deadline and done >= 5:
            break
    return [_latency(times[:done, 0], times[:done, i]) for i in range(len(sessions))]


def _repeats(sessions: Sequence[ort.InferenceSession], feed: Mapping[str, Array]) -> int:
    for session in sessions:
        for _ in range(3):
            session.run(None, feed)
    begin = time.perf_counter()
    sessions[0].run(None, feed)
    return int(np.clip(BLOCK_SECONDS / max(time.perf_counter() - begin, 1e-6), 1, 100))


def _timed(session: ort.InferenceSession, feeds: Sequence[Mapping[str, Array]], repeats: int, turn: int) -> float:
    begin = time.perf_counter()
    for k in range(repeats):
        session.run(None, feeds[(turn + k) % len(feeds)])
    return (time.perf_counter() - begin) / repeats


def _latency(plain: Array, mine: Array) -> Latency:
    low, ratio, high = np.percentile(plain / mine, [25, 50, 75])
    p50, p95 = np.percentile(mine * 1e6, [50, 95])
    return Latency(float(p50), float(p95), float(ratio), float(low), float(high))
