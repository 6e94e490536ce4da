"""Small models and data sets, made once."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgeops.forge.flow import Forged, add_model

SIDE = 64
CLASSES = 10


def blobs(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ten noisy clusters in 64 dimensions that a small network separates well: x (n, 64) float32, y (n,)."""
    centres = np.random.default_rng(99).normal(0, 1, (CLASSES, SIDE))
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, n)
    return (centres[y] + rng.normal(0, 1.6, (n, SIDE))).astype(np.float32), y.astype(np.int64)


@dataclass(frozen=True)
class Case:
    """Files of one model and its data."""

    folder: Path
    model: Path
    other: Path
    forest: Path
    calib: Path
    evaluation: Path
    reference: Path


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Two networks with one input shape, a forest, and three data sets."""
    import skops.io
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits

    folder = tmp_path_factory.mktemp("forge")
    x, y = blobs(1500, 1)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for seed, name in ((0, "net"), (1, "other")):
            skops.io.dump(MLPClassifier((96,), max_iter=8, random_state=seed).fit(x, y), folder / f"{name}.skops")
    skops.io.dump(RandomForestClassifier(5, max_depth=4, random_state=0).fit(x, y), folder / "forest.skops")
    for name, rows, seed in (("calib", 300, 2), ("eval", 3000, 3), ("reference", 1000, 4)):
        data, labels = blobs(rows, seed)
        np.savez(folder / f"{name}.npz", x=data, y=labels)
    return Case(
        folder, folder / "net.skops", folder / "other.skops", folder / "forest.skops", folder / "calib.npz", folder / "eval.npz",
        folder / "reference.npz",
    )


def forge(case: Case, out: Path, model: Path | None = None, **more: object) -> Forged:
    """`add_model` with the data of `case`."""
    arguments = {"name": "net", "version": 1, "fleet": "test", "calib": case.calib, "evaluation": case.evaluation, "now": 1}
    return add_model(model or case.model, out=out, **(arguments | {"reference": case.reference} | more))


@pytest.fixture(scope="session")
def forged(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Forged:
    """The release of the first network."""
    return forge(case, tmp_path_factory.mktemp("release") / "net")
