"""What the agent adds to a bare `InferenceSession.run`: in process, over its Unix socket and over loopback TCP. CPU only.

All paths run interleaved in rounds of one process against one worker process, so that a busy neighbour hits all alike; the
numbers to keep are the ratios. Percentiles are nearest rank. CPU is client + server.
Run: `python benchmarks/inference.py [--json]`.
"""

import argparse
import hashlib
import http.client
import json
import math
import os
import platform
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import psutil
from onnx import TensorProto, helper, numpy_helper

import edgeops
from edgeops.wire.golden import GoldenCase, GoldenSet, Tolerance
from edgeops_agent import Client, Model
from edgeops_agent.shell.runnable import Limits, Runnable
from edgeops_agent.shell.session import open_session
from edgeops_agent.shell.workers import Worker

Array = npt.NDArray[Any]
Call = Callable[[Array], Array]
SHAPE = (1, 1, 49, 10)
CLASSES = 12
WARM_UP, ROUNDS, PER_ROUND = 200, 60, 25
DEPENDENCE = 1e-3


@dataclass
class Route:
    """One way to the model and what was measured on it."""

    name: str
    call: Call
    micros: list[float] = field(default_factory=list)
    cpu: float = 0.0


def keyword_net(seed: int, *, deaf: bool = False) -> onnx.ModelProto:
    """A DS-CNN-like keyword spotter, [1,1,49,10] -> [1,12], He-initialised; `deaf` multiplies its input by zero."""
    rng = np.random.default_rng(seed)
    nodes: list[onnx.NodeProto] = []
    weights: dict[str, Array] = {"gain": np.array(0.0 if deaf else 1.0, np.float32)}

    def conv(source: str, index: int, shape: tuple[int, ...], **attributes: Any) -> str:
        scale = math.sqrt(2.0 / math.prod(shape[1:]))
        weights[f"w{index}"] = (rng.normal(size=shape) * scale).astype(np.float32)
        weights[f"b{index}"] = (rng.normal(size=shape[0]) * 0.1).astype(np.float32)
        nodes.append(helper.make_node("Conv", [source, f"w{index}", f"b{index}"], [f"c{index}"], **attributes))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        return f"r{index}"

    nodes.append(helper.make_node("Mul", ["x", "gain"], ["heard"]))
    at = conv("heard", 0, (64, 1, 10, 4), strides=[2, 2], pads=[5, 1, 5, 1])
    for block in range(4):
        at = conv(at, 2 * block + 1, (64, 1, 3, 3), group=64, pads=[1, 1, 1, 1])
        at = conv(at, 2 * block + 2, (64, 64, 1, 1))
    weights["dense"] = (rng.normal(size=(64, CLASSES)) / 8).astype(np.float32)
    nodes.append(helper.make_node("GlobalAveragePool", [at], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    nodes.append(helper.make_node("MatMul", ["flat", "dense"], ["y"]))
    graph = helper.make_graph(
        nodes, "kws",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, CLASSES))],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def lay_out(folder: Path, model: onnx.ModelProto, samples: list[Array]) -> Runnable:
    """Write the skeleton, its blobs and golden vectors the way the agent's disk has them, and the active pointer."""
    blobs = folder / "blobs"
    blobs.mkdir(exist_ok=True)
    for tensor in model.graph.initializer:
        data = tensor.raw_data
        name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        if len(data) < 64:
            continue
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, text in {"location": name, "offset": "0", "length": str(len(data))}.items():
            entry = tensor.external_data.add()
            entry.key, entry.value = key, text
    skeleton = folder / "kws.onnx"
    skeleton.write_bytes(model.SerializeToString())
    digest = hashlib.sha256(skeleton.read_bytes()).hexdigest()
    limits = Limits(512 << 20, 30_000, 5_000)
    runnable = Runnable("main", "kws", 1, digest, skeleton, blobs, {}, None, None, "any", limits)
    session = open_session(runnable)
    cases = tuple(GoldenCase({"x": x}, {"y": session.run(None, {"x": x})[0]}) for x in samples[:4])
    golden = folder / "golden"
    golden.write_bytes(GoldenSet(cases, {"any": Tolerance()}).encode())
    runnable = Runnable("main", "kws", 1, digest, skeleton, blobs, {}, golden, None, "any", limits)
    (folder / "slots").mkdir(exist_ok=True)
    (folder / "slots" / "main.json").write_text(runnable.to_json())
    return runnable


def depends_on_input(call: Call, samples: list[Array]) -> float:
    """The largest change of the output between different inputs: below 1e-3 nothing was shown about right answers."""
    outputs = [call(x) for x in samples]
    return max(float(np.max(np.abs(outputs[0] - other))) for other in outputs[1:])


def json_caller(address: str) -> Call:
    """A caller that sends and receives JSON tensors on one kept connection."""
    host, _, port = address.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)

    def call(x: Array) -> Array:
        tensor = {"name": "x", "datatype": "FP32", "shape": x.shape, "data": x.ravel().tolist()}
        connection.request("POST", "/v2/models/kws/infer", json.dumps({"inputs": [tensor]}).encode())
        output = json.loads(connection.getresponse().read())["outputs"][0]
        return np.array(output["data"], np.float32).reshape(output["shape"])

    return call


def measure(paths: list[Route], samples: list[Array], server: psutil.Process, rounds: int) -> None:
    """Interleaved rounds over all paths; wall time per call, CPU seconds of client and server per round."""
    for path in paths:
        for i in range(WARM_UP):
            path.call(samples[i % len(samples)])
    for turn in range(rounds):
        for path in paths[turn % len(paths) :] + paths[: turn % len(paths)]:
            before = _cpu(server)
            for i in range(PER_ROUND):
                x = samples[(turn + i) % len(samples)]
                began = time.perf_counter_ns()
                path.call(x)
                path.micros.append((time.perf_counter_ns() - began) / 1000)
            path.cpu += _cpu(server) - before


def _cpu(server: psutil.Process) -> float:
    ours = resource.getrusage(resource.RUSAGE_SELF)
    return ours.ru_utime + ours.ru_stime + _server_cpu(server)


def _server_cpu(server: psutil.Process) -> float:
    """CPU seconds of the worker; from the scheduler in nanoseconds where Linux has it, else in clock ticks."""
    try:
        tasks = Path(f"/proc/{server.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except (OSError, ValueError):
        times = server.cpu_times()
        return times.user + times.system


def rank(values: list[float], percent: float) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def summarise(paths: list[Route]) -> dict[str, dict[str, float]]:
    """Min and percentiles in microseconds, CPU per call, and both as ratios to the first path."""
    rows: dict[str, dict[str, float]] = {}
    base = paths[0]
    for path in paths:
        cpu = path.cpu / len(path.micros) * 1e6
        rows[path.name] = {
            "n": len(path.micros),
            "min_us": min(path.micros),
            "p50_us": rank(path.micros, 50),
            "p90_us": rank(path.micros, 90),
            "p99_us": rank(path.micros, 99),
            "cpu_us": cpu,
            "p50_ratio": rank(path.micros, 50) / rank(base.micros, 50),
            "min_added_us": min(path.micros) - min(base.micros),
            "cpu_ratio": cpu / (base.cpu / len(base.micros) * 1e6),
        }
    return rows


def run(folder: Path, rounds: int) -> dict[str, Any]:
    """Build, check, control, measure; returns the whole report."""
    rng = np.random.default_rng(7)
    samples = [rng.normal(size=SHAPE).astype(np.float32) for _ in range(16)]
    runnable = lay_out(folder, keyword_net(1), samples)
    deaf = folder / "deaf"
    deaf.mkdir()
    deaf_session = open_session(lay_out(deaf, keyword_net(1, deaf=True), samples))
    control = depends_on_input(lambda x: deaf_session.run(None, {"x": x})[0], samples)
    if control >= DEPENDENCE:
        sys.exit(f"the control must fail: a model that ignores its input changed its output by {control}")
    session = open_session(runnable)
    worker = Worker()
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        path = str(folder / "i.sock")
        unix.bind(path)
        unix.listen()
        began = time.perf_counter()
        worker.start(runnable, [tcp, unix])
        outcome = worker.check()
        if not outcome.ok:
            sys.exit(f"the worker refused the model: {outcome}")
        worker.serve()
        cold = time.perf_counter() - began
        address = f"127.0.0.1:{tcp.getsockname()[1]}"
        server = psutil.Process(worker.pid)
        idle_cpu = _server_cpu(server)
        with Model.open(folder) as model, Client(path, "kws") as by_unix, Client(address, "kws") as by_tcp:
            paths = [
                Route("raw session.run", lambda x: session.run(None, {"x": x})[0]),
                Route("in process Model", lambda x: model.infer({"x": x})["y"]),
                Route("Unix socket, binary", lambda x: by_unix.infer({"x": x})["y"]),
                Route("loopback TCP, binary", lambda x: by_tcp.infer({"x": x})["y"]),
                Route("loopback TCP, JSON", json_caller(address)),
            ]
            change = check_answers(paths, samples)
            measure(paths, samples, server, rounds)
        memory = memory_of(server)
    worker.stop()
    return {
        "results": summarise(paths),
        "worker": {"cold_start_s": cold, "cold_start_cpu_s": idle_cpu, **memory},
        "checks": {"output_change": change, "control_output_change": control, "threshold": DEPENDENCE},
        "about": about(runnable, rounds),
    }


def check_answers(paths: list[Route], samples: list[Array]) -> float:
    """Every path gives the raw session's answers, and those depend on the input; exits otherwise. Returns the change."""
    change = depends_on_input(paths[0].call, samples)
    if change < DEPENDENCE:
        sys.exit(f"the model ignores its input (output changes by {change}); the measurement would say nothing")
    for path in paths[1:]:
        worst = max(float(np.max(np.abs(path.call(x) - paths[0].call(x)))) for x in samples)
        if worst > 1e-5:
            sys.exit(f"{path.name} differs from the raw session by {worst}")
    return change


def memory_of(server: psutil.Process) -> dict[str, float]:
    """RSS and, on Linux, PSS of the worker in MB."""
    found = {"rss_mb": server.memory_info().rss / 1e6}
    if sys.platform == "linux":
        found["pss_mb"] = server.memory_full_info().pss / 1e6
    return found


def about(runnable: Runnable, rounds: int) -> dict[str, Any]:
    """Versions, machine, load and sizes of the measurement."""
    return {
        "edgeops": edgeops.__version__, "onnxruntime": ort.__version__, "numpy": np.__version__,
        "python": platform.python_version(), "machine": platform.machine(), "cpu": _cpu_name(), "cpus": os.cpu_count(),
        "load": os.getloadavg(), "threads": 1, "spinning": False, "model_digest": runnable.digest,
        "warm_up_calls": WARM_UP, "rounds": rounds, "calls_per_round": PER_ROUND, "percentiles": "nearest rank",
    }  # fmt: skip


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def show(report: Mapping[str, Any]) -> None:
    """Print the report for people."""
    print(f"{'path':<22}{'n':>6}{'min µs':>9}{'p50':>8}{'p90':>8}{'p99':>9}{'CPU µs':>9}{'p50 x':>8}{'CPU x':>8}{'+min µs':>9}")
    for name, row in report["results"].items():
        print(
            f"{name:<22}{row['n']:>6}{row['min_us']:>9.0f}{row['p50_us']:>8.0f}{row['p90_us']:>8.0f}{row['p99_us']:>9.0f}"
            f"{row['cpu_us']:>9.0f}{row['p50_ratio']:>8.2f}{row['cpu_ratio']:>8.2f}{row['min_added_us']:>9.0f}"
        )
    for part in ("worker", "checks", "about"):
        print(f"{part}: " + ", ".join(f"{key} {_short(value)}" for key, value in report[part].items()))
    print("control: a model that ignores its input was caught by the input-dependence check")


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"interleaved rounds (default {ROUNDS})")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = run(Path(folder), options.rounds)
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        show(report)


if __name__ == "__main__":
    main()
