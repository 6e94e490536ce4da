"""One ONNX Runtime session: thrifty defaults, allow-listed options, reused IO bindings and a deadline for every call."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort

from edgeops.wire.device_class import check_options
from edgeops.wire.errors import Misuse, Rejected, Unfit

from .runnable import Runnable
from .tensors import Array, Tensors, TensorSpec, spec_of

PLANS = 4  # shapes whose buffers are kept
_BLOBS = "session.model_external_initializers_file_folder_path"
_NO_MEMORY = ("bad_alloc", "failed to allocate", "allocate memory", "out of memory")


def open_session(runnable: Runnable) -> ort.InferenceSession:
    """Open the session of `runnable`: 1 thread, no spinning, all optimisations.

    Raises Unfit: session-option, memory, load-failed.
    """
    try:
        check_options(runnable.session_options)
    except Rejected as error:
        raise Unfit("session-option", f"{error.message}; release a variant with allowed options only") from None
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry(_BLOBS, str(runnable.blobs.resolve()))
    for name, value in runnable.session_options.items():
        options.add_session_config_entry(name, value)
    try:
        return ort.InferenceSession(str(runnable.skeleton), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the binding raises a dozen unrelated types
        raise _unfit("load-failed", f"model {runnable.model} v{runnable.version} does not load", error) from None


class Engine:
    """A session with its buffers; `call` may be used from several threads and runs one at a time.

    With `call_ms` a watchdog thread ends a call that takes longer (Unfit "call-timeout"); when the runtime does not even obey
    that for `call_ms` more, `on_stuck` is called once, from the watchdog thread.
    """

    def __init__(
        self, session: ort.InferenceSession, call_ms: int | None = None, on_stuck: Callable[[], None] | None = None
    ) -> None:
        self.inputs = _specs(session.get_inputs())
        self.outputs = _specs(session.get_outputs())
        self._session = session
        self._call_ms = call_ms
        self._names = [spec.name for spec in self.outputs]
        self._strings = any(spec.datatype == "BYTES" for spec in (*self.inputs, *self.outputs))
        self._plans: dict[tuple[tuple[int, ...], ...], _Plan] = {}
        self._plan: _Plan | None = None
        self._running = threading.Lock()
        self._watchdog = None if call_ms is None else Watchdog(call_ms, on_stuck)
        self._options = _run_options()

    def call(self, inputs: Tensors) -> dict[str, Array]:
        """Run the model; arrays in and fresh arrays out, by name.

        Raises Misuse for wrong names, dtypes or shapes; Unfit("busy" | "call-timeout" | "memory" | "call-failed").
        """
        if not self._running.acquire(timeout=-1 if self._call_ms is None else self._call_ms / 1000):
            raise Unfit("busy", f"other calls kept the model busy for {self._call_ms} ms; send fewer at once")
        try:
            if self._strings:
                return self._call_plainly(inputs)
            plan = self._plan
            if plan is None or not plan.take(inputs):
                plan = self._plan = self._plan_for(inputs)
                plan.take(inputs)
            self._guarded(plan)
            return plan.give()
        finally:
            self._running.release()

    def close(self) -> None:
        """End the watchdog; the session goes with the last reference."""
        if self._watchdog is not None:
            self._watchdog.stop()

    def _guarded(self, plan: "_Plan | None", feed: dict[str, Array] | None = None) -> Any:
        watchdog = self._watchdog
        options = self._options
        if watchdog is not None:
            watchdog.enter(options)
        failure: Exception | None = None
        result: Any = None
        try:
            if plan is not None:
                self._session.run_with_iobinding(plan.binding, options)
            else:
                result = self._session.run(self._names, feed, options)
        except Exception as error:  # the binding raises a dozen unrelated types
            failure = error
        finally:
            late = watchdog is not None and watchdog.leave()
        if late:
            self._options = _run_options()
            if failure is not None:
                raise Unfit("call-timeout", f"the model ran longer than {self._call_ms} ms and was stopped") from None
        if failure is not None:
            raise _unfit("call-failed", "the model failed while running", failure) from None
        return result

    def _call_plainly(self, inputs: Tensors) -> dict[str, Array]:
        feed = {spec.name: _take(spec, inputs) for spec in self.inputs}
        self._no_strangers(inputs)
        return dict(zip(self._names, self._guarded(None, feed), strict=True))

    def _plan_for(self, inputs: Tensors) -> "_Plan":
        arrays = [_take(spec, inputs) for spec in self.inputs]
        self._no_strangers(inputs)
        key = tuple(array.shape for array in arrays)
        plan = self._plans.pop(key, None)
        if plan is None:
            while len(self._plans) >= PLANS:
                self._plans.pop(next(iter(self._plans)))
            try:
                plan = _Plan(self._session, self.inputs, self.outputs, key)
            except Exception as error:
                raise _unfit("call-failed", "the model's buffers cannot be made", error) from None
        self._plans[key] = plan
        return plan

    def _no_strangers(self, inputs: Tensors) -> None:
        if len(inputs) != len(self.inputs):
            strange = sorted(set(inputs) - {spec.name for spec in self.inputs})
            raise Misuse("unknown-input", f"the model has no input {', '.join(strange)}")


class _Plan:
    """Buffers bound once for one set of input shapes; outputs of unknown size stay the runtime's."""

    def __init__(
        self,
        session: ort.InferenceSession,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        shapes: tuple[tuple[int, ...], ...],
    ) -> None:
        self.binding = session.io_binding()
        known: dict[str | int, int] = {}
        self._in: list[tuple[str, Array, tuple[int, ...], np.dtype[Any]]] = []
        for spec, shape in zip(inputs, shapes, strict=True):
            buffer = np.zeros(shape, spec.dtype)
            self.binding.bind_cpu_input(spec.name, buffer)
            self._in.append((spec.name, buffer, shape, buffer.dtype))
            known.update((dim, size) for dim, size in zip(spec.dims, shape, strict=True) if isinstance(dim, str) and dim)
        sizes = [tuple(dim if isinstance(dim, int) else known.get(dim, -1) for dim in spec.dims) for spec in outputs]
        self._names = [spec.name for spec in outputs]
        self._out: list[tuple[str, Array]] = []
        fixed = all(size > 0 for shape in sizes for size in shape)
        for spec, shape in zip(outputs, sizes, strict=True):
            if not fixed:
                self.binding.bind_output(spec.name, "cpu")
                continue
            buffer = np.empty(shape, spec.dtype)
            self.binding.bind_output(spec.name, "cpu", 0, spec.dtype.type, shape, buffer.ctypes.data)
            self._out.append((spec.name, buffer))

    def take(self, inputs: Tensors) -> bool:
        """Copy `inputs` into the bound buffers; False when names, shapes or dtypes are others."""
        if len(inputs) != len(self._in):
            return False
        for name, buffer, shape, dtype in self._in:
            array = inputs.get(name)
            if array is None or array.shape != shape or array.dtype != dtype:
                return False
            buffer[...] = array
        return True

    def give(self) -> dict[str, Array]:
        """The outputs of the last run as arrays of their own."""
        if self._out:
            return {name: buffer.copy() for name, buffer in self._out}
        return dict(zip(self._names, self.binding.copy_outputs_to_cpu(), strict=True))


class Watchdog:
    """Sets `terminate` on the options of a call that is over its time; wakes twice per time, holds no reference to results."""

    def __init__(self, call_ms: int, on_stuck: Callable[[], None] | None) -> None:
        self._seconds = call_ms / 1000
        self._on_stuck = on_stuck
        self._guard = threading.Lock()
        self._options: Any = None
        self._since = 0.0
        self._fired = False
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def enter(self, options: Any) -> None:
        """A call begins with these run options."""
        with self._guard:
            self._options, self._since, self._fired = options, time.monotonic(), False

    def leave(self) -> bool:
        """The call is over; True when the watchdog had told it to stop."""
        with self._guard:
            self._options = None
            return self._fired

    def stop(self) -> None:
        """End the thread."""
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(max(0.01, self._seconds / 2)):
            with self._guard:
                running = 0.0 if self._options is None else time.monotonic() - self._since
                if running > self._seconds and not self._fired:
                    self._options.terminate = True
                    self._fired = True
            if running > 2 * self._seconds + 0.25 and self._on_stuck is not None:
                self._on_stuck()
                return


def _specs(values: list[Any]) -> tuple[TensorSpec, ...]:
    specs = []
    for value in values:
        spec = spec_of(value.name, value.type, value.shape)
        if spec is None:
            raise Unfit("unsupported-type", f"{value.name} is {value.type}; only tensors can be served")
        specs.append(spec)
    return tuple(specs)


def _take(spec: TensorSpec, inputs: Tensors) -> Array:
    array = inputs.get(spec.name)
    if array is None:
        raise Misuse("missing-input", f"input {spec.name} ({spec.datatype}{list(spec.shape)}) is missing")
    spec.check(array)
    return array


def _run_options() -> Any:
    """Run options; the binding looks for this entry in every call, and not finding it costs it an exception (30 us)."""
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", "-1")
    return options


def _unfit(reason: str, what: str, error: Exception) -> Unfit:
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or any(word in text.lower() for word in _NO_MEMORY):
        return Unfit("memory", f"{what}: not enough memory within the limit ({text[:300]})")
    return Unfit(reason, f"{what}: {text[:300]}")
