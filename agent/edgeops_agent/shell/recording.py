"""Where the statistics of served calls go: whole calls in, rows for the recorder, windows of counts out."""

import os
import threading
import time

from edgeops.sketch.reference import ReferenceProfile
from edgeops.wire.errors import Misuse

from .recorder import Recorder
from .runnable import Runnable
from .tensors import Array, Tensors

BIN_SECONDS = 1.0
PENULTIMATE = "edgeops_penultimate"  # the output the forge adds for the drift probes
UNTIMED = -1  # the latency of a call belongs to its first row only


class Recording:
    """The statistics of one served model. `append` and `fail` come from inference threads; a thread of its own bins."""

    def __init__(self, recorder: Recorder, reference: ReferenceProfile | None) -> None:
        self._recorder = recorder
        self._rank = None if reference is None else len(reference.shape)
        self._width = 0 if reference is None else reference.outputs
        space = None if reference is None else reference.penultimate_space
        self._inner = 0 if space is None else space.size
        self._binning = threading.Lock()
        self._over = threading.Event()
        threading.Thread(target=self._bin, name="binning", daemon=True).start()

    def append(self, inputs: Tensors, outputs: Tensors, latency_us: int) -> None:
        """Take one call of one or more rows (first axis) and its latency in microseconds; arrays are read later, not changed."""
        rank = self._rank
        if rank is None:
            self._recorder.append(latency_us)
            return
        rows = next(iter(inputs.values()))
        count = len(rows) if rows.ndim > rank else 1
        scores, inner = self._scores(outputs, count), self._penultimate(outputs, count)
        if rows.ndim != rank + 1:
            self._recorder.append(latency_us, rows, scores, inner)
            return
        for i in range(len(rows)):
            score, deep = None if scores is None else scores[i], None if inner is None else inner[i]
            self._recorder.append(UNTIMED if i else latency_us, rows[i], score, deep)

    def fail(self) -> None:
        """Count a call that ended in an error of the model."""
        self._recorder.fail()

    def window(self, now_ms: int) -> bytes | None:
        """Close the window at `now_ms` (milliseconds of the same clock as its start); None while it has too few rows to leave."""
        with self._binning:
            closed = self._recorder.flush(now_ms)
        return None if closed is None else closed.to_bytes()

    def close(self) -> None:
        """End the thread."""
        self._over.set()

    def _scores(self, outputs: Tensors, rows: int) -> Array | None:
        """The first output of numbers that has as many values a row as the reference profile."""
        for name, array in outputs.items():
            if name != PENULTIMATE and self._width and array.dtype.kind == "f" and array.size == rows * self._width:
                return array.reshape(rows, self._width)
        return None

    def _penultimate(self, outputs: Tensors, rows: int) -> Array | None:
        """The penultimate tensor, (rows, d), when the profile projects it."""
        array = outputs.get(PENULTIMATE)
        if not self._inner or array is None or array.size != rows * self._inner:
            return None
        return array.reshape(rows, self._inner)

    def _bin(self) -> None:
        while not self._over.wait(BIN_SECONDS):
            with self._binning:
                self._recorder.drain()


def open_recording(runnable: Runnable, *, reuses_arrays: bool = False) -> Recording:
    """The recording of `runnable`; without a reference profile it has latencies and counters only.

    `reuses_arrays`: the caller changes its arrays after the call, so rows are copied. Raises Misuse for a digest that is not hex,
    Rejected for a malformed reference profile.
    """
    try:
        model = bytes.fromhex(runnable.digest.removeprefix("sha256:"))[:8]
    except ValueError:
        model = b""
    if len(model) != 8:
        raise Misuse("bad-digest", f"digest {runnable.digest!r} of {runnable.model} is not a hexadecimal sha256")
    reference = None if runnable.reference is None else ReferenceProfile.from_bytes(runnable.reference.read_bytes())
    start_ms = time.time_ns() // 1_000_000
    return Recording(Recorder(model, os.urandom(16), reference, start_ms, copy=reuses_arrays), reference)
