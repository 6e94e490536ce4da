"""Records what the model sees and answers as counts. The inference thread appends; the telemetry thread bins and flushes.

Clock values are arguments. Inputs stay in a bounded buffer of this process until they are binned, and are then forgotten.
"""

import math
from collections import deque
from dataclasses import replace
from itertools import count
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from edgeops.sketch.latency import LatencyHistogram
from edgeops.sketch.probes import Counts
from edgeops.sketch.reference import ReferenceProfile
from edgeops.sketch.window import SketchWindow, Tally, no_counts
from edgeops.wire.errors import Misuse

CAPACITY = 1_024
MIN_ROWS = 50
"""Counts of fewer rows do not leave the device; they wait for the next window."""
BATCH = 256
BATCH_BYTES = 1 << 20
BUFFER_BYTES = 8 << 20
Array = npt.NDArray[Any]
_Row = tuple[Array | None, Array | None, Array | None]


class Recorder:
    """Counts of one model in this process. `append` may be called from any thread; all else from one telemetry thread.

    model: SHA-256 prefix, 8 B. boot: 16 B, new for every recorder. reference None records latency and counters only.
    stride: every stride-th call is binned. copy: copy rows on append, for callers that reuse their arrays.
    The buffer holds 1,024 calls, fewer when rows are so large that they would pass 8 MB.
    """

    def __init__(
        self,
        model: bytes,
        boot: bytes,
        reference: ReferenceProfile | None,
        start_ms: int,
        *,
        stride: int = 1,
        copy: bool = False,
    ) -> None:
        if stride < 1:
            raise Misuse("stride-range", f"stride is 1 or more, not {stride}")
        self._model, self._boot, self._reference = model, boot, reference
        self._profile = reference.hash8 if reference else bytes(8)
        self._stride, self._copy = stride, copy
        self._seq, self._start_ms = 0, start_ms
        row_bytes = _row_bytes(reference)
        self._capacity = max(1, min(CAPACITY, BUFFER_BYTES // row_bytes))
        self._batch = max(1, min(BATCH, BATCH_BYTES // row_bytes))
        self._latencies: deque[int] = deque()
        self._rows: deque[_Row] = deque()
        self._errors, self._unheard, self._unbinned = _Ticks(), _Ticks(), _Ticks()
        self._call = count().__next__
        self._blank = Tally(probes=no_counts() if reference is None else np.zeros_like(reference.counts))
        self._held = self._blank

    def append(
        self, latency_us: int, inputs: Array | None = None, outputs: Array | None = None, penultimate: Array | None = None
    ) -> None:
        """Remember one row answered: whole microseconds, and the row's arrays without a batch axis. Never blocks, never raises.

        About 0.2 us. What finds the buffer full is counted as dropped; a batch of n rows is n appends.
        """
        latencies = self._latencies
        if len(latencies) >= CAPACITY:
            self._unheard.tick()
            return
        latencies.append(latency_us)
        if inputs is None or self._call() % self._stride:
            return
        if len(self._rows) >= self._capacity:
            self._unbinned.tick()
        elif self._copy:
            self._rows.append((_copied(inputs), _copied(outputs), _copied(penultimate)))
        else:
            self._rows.append((inputs, outputs, penultimate))

    def fail(self) -> None:
        """Count a call that ended in an error."""
        self._errors.tick()

    def drain(self) -> None:
        """Bin what is buffered and forget it; call it every second or so, about 2 us a row."""
        latencies = [self._latencies.popleft() for _ in range(len(self._latencies))]
        rows = [self._rows.popleft() for _ in range(len(self._rows))]
        errors, unheard, unbinned = self._errors.read(), self._unheard.read(), self._unbinned.read()
        n, invalid, probes = self._binned(rows)
        timed = [us for us in latencies if us >= 0]
        self._held = self._held.merge(
            Tally(
                n, len(latencies) + errors + unheard, errors, invalid, unheard + unbinned, probes, LatencyHistogram.of(timed)
            )
        )

    def flush(self, now_ms: int) -> SketchWindow | None:
        """Drain, and the window since the last one; None, keeping everything for next time, while it has fewer than 50 rows.

        With errors, invalid or dropped rows to report it leaves at once, without the counts of its fewer than 50 rows.
        """
        self.drain()
        held = self._held
        small = (held.n if self._reference else held.calls) < MIN_ROWS
        if small and not (held.errors or held.invalid or held.dropped):
            return None
        sent, kept = held, self._blank
        if small:
            sent = replace(held, n=0, probes=self._blank.probes)
            kept = replace(self._blank, n=held.n, probes=held.probes)
        window = SketchWindow(
            self._model, self._profile, self._boot, self._seq, self._start_ms, max(0, now_ms - self._start_ms), self._stride, sent
        )
        self._held, self._start_ms, self._seq = kept, now_ms, self._seq + 1
        return window

    def _binned(self, rows: list[_Row]) -> tuple[int, int, Counts]:
        """How many rows were counted, how many do not fit the profile, and the counts."""
        probes = self._blank.probes.copy()
        reference = self._reference
        if reference is None:
            return 0, 0, probes
        inner = reference.penultimate_space.size if reference.penultimate_space else 0
        good = [
            row for row in rows
            if _real(row[0]) and row[0].shape == reference.shape and _fits(row[1], reference.outputs) and _fits(row[2], inner)
        ]  # fmt: skip
        for at in range(0, len(good), self._batch):
            inputs, outputs, penultimate = zip(*good[at : at + self._batch], strict=True)
            probes += reference.count(
                np.stack(inputs), _stacked(outputs, reference.outputs), _stacked(penultimate, inner)
            )
        return len(good), len(rows) - len(good), probes


class _Ticks:
    """Counts from many threads without a lock: `itertools.count` advances in one step of the interpreter."""

    __slots__ = ("_last", "tick")

    def __init__(self) -> None:
        self.tick = count().__next__
        self._last = -1

    def read(self) -> int:
        """Ticks since the last read; from one thread only. Reading takes one tick itself."""
        now = self.tick()
        ticks = now - self._last - 1
        self._last = now
        return ticks


def _copied(array: Array | None) -> Array | None:
    return None if array is None else array.copy()


def _real(array: Array | None) -> TypeGuard[Array]:
    return array is not None and array.dtype.kind in "fiub"


def _fits(array: Array | None, size: int) -> bool:
    return not size or (_real(array) and array.size == size)


def _stacked(rows: tuple[Array | None, ...], size: int) -> Array | None:
    return np.stack([row.reshape(-1) for row in rows if row is not None]) if size else None


def _row_bytes(reference: ReferenceProfile | None) -> int:
    """Bytes of one buffered row if all its numbers were float32."""
    if reference is None:
        return 1
    inner = reference.penultimate_space.size if reference.penultimate_space else 0
    return 4 * max(1, math.prod(reference.shape) + reference.outputs + inner)
