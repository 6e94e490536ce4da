"""Trains the two models of the demo on scikit-learn's handwritten digits and writes the data they are released and served with.

    python -m edgeops.cli.local.demo.digits OUT [--seed 0]

writes digits-1.skops (a small network), digits-2.skops (a better one), calib.npz, eval.npz, reference.npz, heldout.npz, field.npz.
Every row is a float32 vector of 64 pixels in 0..1.

How the 1,797 originals are used. They are shuffled once and split BY ORIGINAL, before anything is augmented, into four pools
that share no image: train (900), calib (150), eval (297), field (450). So no evaluation row is a shifted copy of a training image.

Why reference and serving share a pool. A drift test asks whether live rows come from the distribution the reference rows came
from. An augmented pool of 450 originals is a mixture of 450 clusters; rows of two different pools come from two different
mixtures, and with thousands of rows a good test finds that: a true finding, and yet a false alarm. So reference.npz and
heldout.npz are independent draws, by the same function `draw`, from the same `field` pool, on which no model was trained,
calibrated or evaluated: they are exchangeable row by row. Agents that serve for long should draw fresh rows
(`draw(*load_field(path), n, rng)`) rather than cycle through heldout.npz: 6,000 rows used again and again carry their own
sampling error, which no longer averages out.
"""

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
POOLS = {"train": 900, "calib": 150, "eval": 297, "field": 450}
SIDE = 8
ROWS = {"calib": 600, "eval": 5000, "reference": 8000, "heldout": 6000}


def augment(images: Array, rng: np.random.Generator) -> Array:
    """Rows (n, 64) in 0..1 as a camera might see them again: shifted by up to 1 px, brightness ±10 %, a little noise; float32."""
    n = len(images)
    padded = np.pad(images.reshape(n, SIDE, SIDE), ((0, 0), (1, 1), (1, 1)))
    down, right = rng.integers(0, 3, (2, n))
    rows = down[:, None, None] + np.arange(SIDE)[None, :, None]
    columns = right[:, None, None] + np.arange(SIDE)[None, None, :]
    moved = padded[np.arange(n)[:, None, None], rows, columns].reshape(n, SIDE * SIDE)
    bright = moved * rng.uniform(0.9, 1.1, (n, 1))
    noisy: Array = np.clip(bright + rng.normal(0, 0.03, bright.shape), 0, 1).astype(np.float32)
    return noisy


def draw(images: Array, labels: Array, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """n fresh rows and their labels: originals drawn with replacement, each augmented anew."""
    chosen = rng.integers(0, len(images), n)
    return augment(images[chosen], rng), labels[chosen]


def load_field(path: Path) -> tuple[Array, Array]:
    """Originals (450, 64) and labels of the field pool, from field.npz: what devices draw from."""
    with np.load(path) as held:
        return held["x"], held["y"]


def pools(seed: int) -> dict[str, tuple[Array, Array]]:
    """The four disjoint pools of originals, shuffled by `seed`."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    result, at = {}, 0
    for name, size in POOLS.items():
        part = order[at : at + size]
        result[name] = ((images[part] / 16).astype(np.float32), labels[part].astype(np.int64))
        at += size
    return result


def train(x: Array, y: Array, hidden: int, epochs: int, seed: int) -> Any:
    """A network with one hidden layer, trained for a fixed number of epochs."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    model = MLPClassifier((hidden,), max_iter=epochs, random_state=seed, learning_rate_init=3e-3)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)


def main(out: Path, seed: int) -> None:
    """Write everything to `out`."""
    import skops.io

    out.mkdir(parents=True, exist_ok=True)
    originals = pools(seed)
    rng = np.random.default_rng(seed + 1)
    x, y = draw(*originals["train"], 12_000, rng)
    models = {"digits-1": train(x[:3000], y[:3000], 32, 40, seed), "digits-2": train(x, y, 128, 25, seed)}
    for name, model in models.items():
        skops.io.dump(model, out / f"{name}.skops")
    for name, rows in ROWS.items():
        drawn, labels = draw(*originals["field" if name in {"reference", "heldout"} else name], rows, rng)
        np.savez_compressed(out / f"{name}.npz", x=drawn, y=labels)
        for title, model in models.items() if name in {"eval", "heldout"} else ():
            print(f"{title} on {name}: accuracy {model.score(drawn, labels):.4f}")
    np.savez_compressed(out / "field.npz", x=originals["field"][0], y=originals["field"][1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the demo's two digit models and draw its data.")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    main(arguments.out, arguments.seed)
