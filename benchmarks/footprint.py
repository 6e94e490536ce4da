"""What an agent costs a device that has one small model: memory of supervisor and worker, start-up and idle CPU, memory over swaps.

A real manager and a real enrolled agent on this machine, the keyword model of `inference.py`. PSS counts a shared page in parts, so
that other Python programs on the machine make it smaller: USS (what is nobody else's) stands beside it. CPU seconds, not wall time.
Control: 64 MB more must be seen in the sum. Run: `python benchmarks/footprint.py [--json] [--idle S] [--swaps N]`.
"""

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import psutil
from inference import SHAPE, keyword_net, lay_out

from edgeops.cli import context
from edgeops.cli.client import Client
from edgeops.cli.remote.releases import upload
from edgeops.forge.pack import Folder, write_release
from edgeops.forge.sign import sign_release
from edgeops.manager.setup import load_signer
from edgeops.parcel.manifest import Manifest
from edgeops.wire.golden import GoldenCase, GoldenSet, Tolerance
from edgeops.wire.release import Release, Tensor, Variant
from edgeops_agent.shell.runnable import Runnable
from edgeops_agent.shell.workers import Worker

MEGABYTE = 1e6
TARGETS = {"sum_pss_mb": (110, 85), "worker_cold_cpu_s": (0.7, 0.35), "swaps_ratio": (1.2, 1.05)}
BALLAST = 64 << 20


def command(*words: str) -> list[str]:
    """One of our programs, of this environment."""
    return [sys.executable, "-m", *words]


@contextmanager
def fleet(folder: Path) -> Iterator[tuple[Client, psutil.Process]]:
    """A manager that is up and an agent that is enrolled and runs."""
    env = {**os.environ, "EDGEOPS_CONFIG": str(folder / "contexts.toml")}
    init = ("edgeops.cli.entry", "init", "m", "--fleet", "bench", "--address", "127.0.0.1", "--https-port", "0", "--mqtt-port", "0")
    subprocess.run(command(*init, "--json"), cwd=folder, env=env, check=True, capture_output=True)
    up = subprocess.Popen(
        command("edgeops.cli.entry", "up", "m", "--json"), cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    agent = None
    try:
        assert up.stdout is not None
        up.stdout.readline()
        api = Client(context.load(folder / "contexts.toml").pick())
        token = str(api.post("/devices", {"id": "pi-1", "labels": {"name": "pi-1"}})["token"])
        state = str(folder / "state")
        subprocess.run(command("edgeops_agent.cli", "enroll", token, "--state", state), env=env, check=True, capture_output=True)
        agent = subprocess.Popen(
            command("edgeops_agent.cli", "run", "--state", state, "--port", "0"), env=env, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        yield api, psutil.Process(agent.pid)
    finally:
        for process in (agent, up):
            if process is not None:
                process.terminate()
                process.wait(30)


def deliver(api: Client, folder: Path) -> None:
    """Sign a release of the keyword model, past the forge, and order it."""
    model = keyword_net(1)
    x = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    y = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    place = Folder(folder / "release")
    skeleton = place.put(model.SerializeToString())
    manifest = Manifest(skeleton, (), place.put(GoldenSet((GoldenCase({"x": x}, {"y": y}),), {"any": Tolerance()}).encode()))
    side = place.put(manifest.encode())
    variant = Variant(("any",), {}, side, side.size + manifest.size)
    ports = (Tensor("x", "float32", SHAPE),), (Tensor("y", "float32", y.shape),)
    write_release(place, Release("bench", "model", "kws", 1, 1, *ports, 9, 17, "1.16", {"fp32": variant}, {}))
    sealed = sign_release(place.root, [load_signer(folder / "m" / "keys" / "release.key")])
    upload(api, sealed, lambda digest: (place.objects / digest).read_bytes(), lambda size: None)
    api.post("/rollouts", {"model": "kws", "version": 1, "to": "name=pi-1", "waves": "1", "trial": {"window_s": 1}})


def until(ready: Any, seconds: float = 60.0) -> Any:
    """The first true answer."""
    end = time.monotonic() + seconds
    while not (found := ready()):
        if time.monotonic() > end:
            sys.exit("the agent did not come to run its model")
        time.sleep(0.05)
    return found


def weigh(process: psutil.Process) -> dict[str, float]:
    """PSS, USS and RSS in MB."""
    found = process.memory_full_info()
    return {name: getattr(found, name) / MEGABYTE for name in ("pss", "uss", "rss")}


def cpu(process: psutil.Process) -> float:
    """CPU seconds so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def at_rest(folder: Path, idle_s: float) -> dict[str, float]:
    """An agent that serves and is not called: memory, and CPU seconds an hour."""
    with fleet(folder) as (api, supervisor):
        deliver(api, folder)
        until(lambda: (folder / "state" / "slots" / "main.json").exists())
        until(supervisor.children)
        worker = supervisor.children()[0]
        time.sleep(3.0)  # first reports and the end of the trial are not idling
        before = cpu(supervisor), cpu(worker)
        time.sleep(idle_s)
        after = cpu(supervisor), cpu(worker)
        parts = {"supervisor": weigh(supervisor), "worker": weigh(worker)}
    found = {f"{name}_{kind}_mb": size for name, sizes in parts.items() for kind, size in sizes.items()}
    found |= {f"sum_{kind}_mb": sum(sizes[kind] for sizes in parts.values()) for kind in ("pss", "uss", "rss")}
    hourly = [3600 * (end - begin) / idle_s for begin, end in zip(before, after, strict=True)]
    return found | {"supervisor_idle_cpu_s_per_hour": hourly[0], "worker_idle_cpu_s_per_hour": hourly[1]}


def swap(runnable: Runnable, times: int) -> dict[str, float]:
    """Start a worker, let it take over from the one before, end that one; again and again. Median CPU of a start as well."""
    ours, cold, rss, peaks = psutil.Process(), list[float](), list[float](), list[float]()
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        old = None
        for _ in range(times):
            worker = Worker()
            worker.start(runnable, [tcp])
            if not worker.check().ok:
                sys.exit("the worker refused the model")
            worker.serve()
            process = psutil.Process(worker.pid)
            cold.append(cpu(process))
            if old is not None:
                peaks.append(sum(weigh(each)["pss"] for each in (ours, process, psutil.Process(old.pid))))
                old.drain(worker)
                old.stop()
            old = worker
            rss.append((ours.memory_info().rss + process.memory_info().rss) / MEGABYTE)
        assert old is not None
        control = ballast(old)
        old.stop()
    first, last = rss[1], sum(rss[-3:]) / 3
    return {
        "worker_cold_cpu_s": statistics.median(cold), "swaps": times, "swaps_first_mb": first, "swaps_last_mb": last,
        "swaps_ratio": last / first, "swap_peak_pss_mb": max(peaks), "control_mb": control,
    }  # fmt: skip


def ballast(worker: Worker) -> float:
    """How much 64 MB more in this process change the measured sum: a scale that does not move proves nothing."""
    def measured() -> float:
        return weigh(psutil.Process())["pss"] + weigh(psutil.Process(worker.pid))["pss"]

    before = measured()
    kept = np.ones(BALLAST, np.uint8)
    moved = measured() - before
    if moved < 0.9 * kept.nbytes / MEGABYTE:
        sys.exit(f"the control must be seen: 64 MB more changed the sum by {moved:.1f} MB")
    return moved


def run(folder: Path, idle_s: float, swaps: int) -> dict[str, Any]:
    """Everything."""
    (folder / "fleet").mkdir()
    rng = np.random.default_rng(7)
    runnable = lay_out(folder, keyword_net(1), [rng.normal(size=SHAPE).astype(np.float32) for _ in range(4)])
    found = {**at_rest(folder / "fleet", idle_s), **swap(runnable, swaps)}
    about = {
        "python": platform.python_version(), "onnxruntime": ort.__version__, "numpy": np.__version__, "machine": platform.machine(),
        "cpus": os.cpu_count(), "load": os.getloadavg(), "idle_s": idle_s,
    }  # fmt: skip
    return {"results": found, "targets": TARGETS, "about": about}


def main() -> int:
    """Entry point: exit code 1 when a target that must be met is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--idle", type=float, default=60.0, help="seconds of idling (default %(default)s)")
    parser.add_argument("--swaps", type=int, default=200, help="hot swaps (default %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = run(Path(folder), options.idle, options.swaps)
    results = report["results"]
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        for name, figure in results.items():
            must = f"   must <= {TARGETS[name][0]}, reach {TARGETS[name][1]}" if name in TARGETS else ""
            print(f"{name:<34}{figure:>10.2f}{must}")
        print("about: " + ", ".join(f"{name} {value}" for name, value in report["about"].items()))
    return int(any(results[name] > must for name, (must, _) in TARGETS.items()))


if __name__ == "__main__":
    sys.exit(main())
