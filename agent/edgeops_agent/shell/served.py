"""A model being served: calls it, counts, and hands inputs, outputs and latency to whoever keeps the statistics."""

import math
import threading
import time
from array import array
from typing import Any, Protocol

import numpy as np

from edgeops.wire.errors import Unfit

from .runnable import Runnable
from .session import Engine
from .tensors import Array, Tensors

LATENCIES = 4096
RECENT_NS = 600 * 10**9
"""Percentiles are of calls not older than that: a model is compared with how its predecessor did lately, not last week."""


class CallSink(Protocol):
    """Whoever keeps the statistics; `append` runs in the inference thread and must only append."""

    def append(self, inputs: Tensors, outputs: Tensors, latency_us: int) -> None:
        """Take one call: arrays by name (not to be changed) and its latency in microseconds."""

    def fail(self) -> None:
        """Count a call that ended in an error of the model."""


class Served:
    """One runnable with its engine; `infer` is what the local server and the in-process API call."""

    def __init__(self, runnable: Runnable, engine: Engine, sink: CallSink | None = None) -> None:
        self.runnable = runnable
        self.engine = engine
        self._sink = sink
        self._counting = threading.Lock()
        self._took, self._at = array("q", bytes(8 * LATENCIES)), array("q", bytes(8 * LATENCIES))
        self._total_ns = 0
        self._calls = 0
        self._busy = 0
        self._failed_ns = 0
        self._errors: dict[str, int] = {}

    def infer(self, inputs: Tensors) -> dict[str, Array]:
        """Run once; raises what `Engine.call` raises. The model's failures are counted by reason, the caller's are not.

        A call that found the model busy with others says nothing of the model: it is counted apart. Where statistics are kept, an
        answer that is not finite though the question was is given, and counted as a failure.
        """
        began = time.perf_counter_ns()
        try:
            outputs = self.engine.call(inputs)
        except Unfit as error:
            if error.reason == "busy":
                with self._counting:
                    self._busy += 1
                raise
            self._failed(error.reason, time.perf_counter_ns() - began)
            raise
        ended = time.perf_counter_ns()
        took = ended - began
        if self._sink is not None and not _finite(outputs) and _finite(inputs):
            self._failed("non-finite", took)
            return outputs
        with self._counting:
            place = self._calls % LATENCIES
            self._took[place], self._at[place] = took, ended
            self._calls += 1
            self._total_ns += took
        if self._sink is not None:
            self._sink.append(inputs, outputs, took // 1000)
        return outputs

    def _failed(self, reason: str, took: int) -> None:
        with self._counting:
            self._errors[reason] = self._errors.get(reason, 0) + 1
            self._failed_ns += took
        if self._sink is not None:
            self._sink.fail()

    def counters(self) -> dict[str, Any]:
        """Calls, errors (by reason) and calls turned away since the start; p50/p99 in microseconds of recent calls, or 0."""
        since = time.perf_counter_ns() - RECENT_NS
        with self._counting:
            held = min(self._calls, LATENCIES)
            recent = sorted(self._took[place] for place in range(held) if self._at[place] >= since)
            return {
                "calls": self._calls,
                "errors": sum(self._errors.values()),
                "busy": self._busy,
                "errors_by_reason": dict(self._errors),
                "total_us": self._total_ns // 1000,
                "failed_us": self._failed_ns // 1000,
                "latency_us_p50": percentile(recent, 50) // 1000,
                "latency_us_p99": percentile(recent, 99) // 1000,
            }


def _finite(arrays: Tensors) -> bool:
    """Whether all floats are finite. The sum of squares says so of nearly all, in half the time."""
    floats = (one for one in arrays.values() if one.dtype.kind == "f")
    return all((one.itemsize > 2 and math.isfinite(np.vdot(one, one))) or np.isfinite(one).all() for one in floats)


def percentile(ordered: list[int], percent: float) -> int:
    """The nearest-rank percentile of ascending values; 0 for none."""
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)] if ordered else 0
