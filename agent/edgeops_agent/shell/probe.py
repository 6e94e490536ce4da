"""Is this model fit to serve? Golden vectors, finite outputs and measured latency, in the process that will serve it."""

import time
from collections.abc import Callable, Iterator
from itertools import cycle

import numpy as np

from edgeops.wire.errors import EdgeopsError
from edgeops.wire.golden import GoldenSet, compare

from .outcome import ProbeOutcome
from .runnable import Runnable
from .served import percentile
from .session import Engine
from .tensors import Array, Tensors, TensorSpec

TIMED_CALLS = 30
TIMED_SECONDS = 0.5


def probe(engine: Engine, runnable: Runnable, on_call: Callable[[], object]) -> ProbeOutcome:
    """Run every golden case (without a golden set: one call on ones), then time warm calls; `on_call` marks each beginning."""
    try:
        cases = _cases(engine, runnable)
        for inputs, check in cases:
            on_call()
            outputs = engine.call(inputs)
            problem = _not_finite(outputs)
            if problem:
                return ProbeOutcome(False, "non-finite", problem)
            problems = check(outputs)
            if problems:
                return ProbeOutcome(False, "golden-mismatch", "; ".join(problems)[:1000])
        return _time(engine, cycle([inputs for inputs, _ in cases]), on_call)
    except EdgeopsError as error:
        return ProbeOutcome(False, error.reason, error.message)
    except MemoryError as error:
        return ProbeOutcome(False, "memory", f"not enough memory within the limit: {error}")


def _cases(
    engine: Engine, runnable: Runnable
) -> list[tuple[Tensors, Callable[[Tensors], tuple[str, ...]]]]:
    if runnable.golden is None:
        return [({spec.name: _ones(spec) for spec in engine.inputs}, lambda outputs: ())]
    golden = GoldenSet.decode(runnable.golden.read_bytes())
    tolerance = golden.tolerance_for(runnable.device_class)
    return [
        (case.inputs, lambda got, want=case.outputs: compare(want, got, tolerance))  # type: ignore[misc]
        for case in golden.cases
    ]


def _time(engine: Engine, inputs: Iterator[Tensors], on_call: Callable[[], object]) -> ProbeOutcome:
    taken: list[int] = []
    until = time.monotonic() + TIMED_SECONDS
    while len(taken) < TIMED_CALLS and (not taken or time.monotonic() < until):
        on_call()
        feed = next(inputs)
        began = time.perf_counter_ns()
        engine.call(feed)
        taken.append((time.perf_counter_ns() - began) // 1000)
    taken.sort()
    return ProbeOutcome(True, "", f"{len(taken)} timed calls", percentile(taken, 50), percentile(taken, 99))


def _not_finite(outputs: Tensors) -> str:
    bad = [name for name, array in outputs.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    return f"output {', '.join(bad)} is not finite" if bad else ""


def _ones(spec: TensorSpec) -> Array:
    shape = tuple(1 if size == -1 else size for size in spec.shape)
    return np.full(shape, "1", object) if spec.datatype == "BYTES" else np.ones(shape, spec.dtype)
