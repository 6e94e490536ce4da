"""The reference profile of one variant: what a device's traffic is compared with, counted over this variant's own outputs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeops.sketch.build import MIN_ROWS, build_reference
from edgeops.sketch.reference import ReferenceProfile

from .runtime import PENULTIMATE, open_session, run_rows, scores_name


def few_rows(x: npt.NDArray[Any]) -> str:
    """A warning when x has too few rows for a reference; else empty."""
    if len(x) >= MIN_ROWS:
        return ""
    return f"no drift will be watched: the reference has {len(x)} rows, at least {MIN_ROWS} are needed; give more with --reference"


def make_reference(
    skeleton: Path, objects: Path, options: Mapping[str, str], x: npt.NDArray[Any], seed: int = 0
) -> ReferenceProfile | None:
    """The profile over rows x (n, ...), which the model must not have been trained on; None below the least number of rows.

    Outputs are those of `runtime.scores_name` flattened to (n, k), penultimate is the output `edgeops_penultimate` if there is one.
    """
    if len(x) < MIN_ROWS:
        return None
    outputs = run_rows(open_session(skeleton, objects, options), x)
    scores = outputs[scores_name(outputs)]
    inner = outputs.get(PENULTIMATE)
    profile: ReferenceProfile = build_reference(
        x, np.asarray(scores.reshape(len(x), -1)), inner, seed=seed
    )
    return profile
