"""Seeded streams of augmented digits and a small classifier made of plain numpy: every draw is fresh, drifted or not."""

from dataclasses import dataclass, field
from functools import cache

import numpy as np
from hypothesis import settings
from sklearn.datasets import load_digits

from edgeops.sketch.build import build_reference
from edgeops.sketch.reference import ReferenceProfile
from edgeops.sketch.window import SketchWindow, Tally

STEADY = settings(derandomize=True, deadline=None)
"""Hypothesis with the same examples every time and no stopwatch: other work shares the machine."""


@cache
def digits():
    """1,797 images (n, 8, 8) in 0..1, float32, and their labels."""
    bunch = load_digits()
    return (bunch.images / 16.0).astype(np.float32), bunch.target


@cache
def network():
    """Weights of a ridge classifier on 16 random rectified features: penultimate (n, 16) and probabilities (n, 10)."""
    images, labels = digits()
    hidden = np.random.default_rng(7).standard_normal((64, 16)) / 4.0
    inner = np.maximum(images.reshape(-1, 64) @ hidden, 0.0)
    top = np.linalg.solve(inner.T @ inner + np.eye(16), inner.T @ (np.eye(10)[labels] * 12.0))
    return hidden, top


def draw(rng, rows, dark=1.0, shift=0):
    """Fresh rows: a random digit, brightness 0.9..1.1 and pixel noise; `dark` scales them, `shift` rolls them by pixels."""
    images, _ = digits()
    x = images[rng.integers(0, len(images), rows)]
    x = x * rng.uniform(0.9, 1.1, (rows, 1, 1)).astype(np.float32) + rng.normal(0, 0.03, x.shape).astype(np.float32)
    return np.roll(x * np.float32(dark), shift, axis=2)


def answer(x):
    """Probabilities (n, 10) and penultimate activations (n, 16) of images (n, 8, 8)."""
    hidden, top = network()
    inner = np.maximum(x.reshape(len(x), -1) @ hidden, 0.0)
    scores = np.exp(inner @ top - (inner @ top).max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True), inner


@cache
def digits_reference(seed=0, rows=4000) -> ReferenceProfile:
    """A reference made of the same seeded augmentation the streams use."""
    x = draw(np.random.default_rng(10_000 + seed), rows)
    return build_reference(x, *answer(x), seed=seed)


def count(reference, x):
    """Probe counts of images."""
    return reference.count(x, *answer(x))


@dataclass
class Stream:
    """Windows of one device, numbered as they come."""

    reference: ReferenceProfile
    boot: bytes = bytes(16)
    windows: list[SketchWindow] = field(default_factory=list)

    def add(self, counts) -> None:
        """One more window with these probe counts (P, 13)."""
        n = int(counts[0, :11].sum()) if len(counts) else 0
        tally = Tally(n=n, calls=n, probes=counts)
        seq = len(self.windows)
        window = SketchWindow(bytes(8), self.reference.hash8, self.boot, seq, seq * 60_000, 60_000, 1, tally)
        self.windows.append(window)
