"""A real manager in a process of its own, and real agents enrolled with it: commands as a user types them, no fault switches."""

import contextlib
import functools
import http.client
import io
import json
import os
import queue
import resource
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import paho.mqtt.client as mqtt
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper
from paho.mqtt.enums import CallbackAPIVersion

from edgeops.cli import context
from edgeops.cli.client import Client
from edgeops.wire import topics
from edgeops.wire.errors import Misuse
from edgeops_agent.cli import main as agent_main
from edgeops_agent.core.record import Record
from edgeops_agent.shell.disk import StateFolder

PATIENCE_S = 60.0
MODELS = {"small:1": (1, 8), "small:2": (2, 8), "big:1": (3, 8_000)}
"""Releases by name: seed and hidden width. A width of 8,000 makes 640 kB."""
FEATURES = 16
X = np.ones((1, FEATURES), np.float32)


def until(ready: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> Any:
    """The first true answer of `ready`; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for: {what}"
        time.sleep(0.02)
    return found


@dataclass
class Site:
    """One manager: `init`, `up`, and whatever a user asks of it."""

    folder: Path
    process: subprocess.Popen[str] | None = None
    ready: dict[str, Any] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)

    @property
    def env(self) -> dict[str, str]:
        """The environment of every command here."""
        return {**os.environ, "EDGEOPS_CONFIG": str(self.folder / "contexts.toml"), "PYTHONUNBUFFERED": "1"}

    @functools.cached_property
    def api(self) -> Client:
        """The manager's API, as the CLI asks it."""
        return Client(context.load(self.folder / "contexts.toml").pick())

    @property
    def root(self) -> Path:
        """The manager's own folder."""
        return self.folder / "m"

    def edgeops(self, *words: str) -> dict[str, Any]:
        """One `edgeops` command that must succeed; its JSON."""
        argv = [sys.executable, "-m", "edgeops.cli.entry", *words, "--json"]
        done = subprocess.run(argv, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, f"edgeops {' '.join(words)}: {done.stdout} {done.stderr}"
        return dict(json.loads(done.stdout.strip().splitlines()[-1])) if done.stdout.strip() else {}

    def init(self) -> None:
        """Keys, certificates, database on free ports."""
        words = ("--fleet", "berlin", "--address", "127.0.0.1", "--https-port", "0", "--mqtt-port", "0")
        self.edgeops("init", "m", *words)
        settings = self.root / "edgeops.toml"
        text = settings.read_text().replace("tick_ms = 1000", "tick_ms = 100")
        settings.write_text(text.replace("want_window_ms = 500", "want_window_ms = 50"))

    def up(self) -> None:
        """Start the manager and wait until it answers."""
        argv = [sys.executable, "-m", "edgeops.cli.entry", "up", "m", "--json"]
        with (self.folder / "up.log").open("ab") as log:
            self.process = subprocess.Popen(
                argv, cwd=self.folder, env=self.env, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        self.ready = json.loads(self.process.stdout.readline())

    def down(self, number: int = signal.SIGTERM) -> None:
        """Stop the manager and its broker."""
        if self.process is None:
            return
        family = [self.process, *psutil.Process(self.process.pid).children(recursive=True)]
        self.process.send_signal(number)
        self.process.communicate(timeout=PATIENCE_S)
        for child in family[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.wait(PATIENCE_S)
        self.process = None

    def broker(self) -> psutil.Process:
        """The broker's process."""
        assert self.process is not None
        found = psutil.Process(self.process.pid).children(recursive=True)
        return next(child for child in found if "mosquitto" in child.name() or "python" in child.name())

    def release(self, name: str) -> None:
        """Forge, sign and upload one of MODELS, once."""
        if name in self.released:
            return
        self.released.add(name)
        version = name.replace(":", "-")
        _make_model(self.folder / f"{version}.onnx", *MODELS[name])
        data = ("--calib", f"{version}.calib.npz", "--eval", f"{version}.eval.npz", "--variants", "fp32")
        self.edgeops("model", "add", name, f"{version}.onnx", *data, "--folder", "m", "--out", f"releases/{version}")

    def register(self, device: str, **more: int) -> str:
        """A new device's one-time token."""
        return str(self.api.post("/devices", {"id": device, "labels": {"name": device}, **more})["token"])

    def order(self, device: str, release: str, slot: str = "main", trial_s: int = 1) -> str:
        """Start a rollout of `release` to one device with a trial of `trial_s` seconds; its id."""
        self.release(release)
        model, _, version = release.partition(":")
        body = {
            "model": model, "version": int(version), "to": f"name={device}", "waves": "1", "slot": slot,
            "policy": {"dwell_s": 0}, "trial": {"window_s": trial_s},
        }  # fmt: skip
        return str(until(lambda: self._started(body), "the rollout before to settle")["id"])

    def _started(self, body: dict[str, Any]) -> Any:
        try:
            return self.api.post("/rollouts", body)
        except Misuse as error:
            if error.reason == "rollout-conflict":
                return None
            raise

    def device(self, device: str) -> dict[str, Any]:
        """What the manager knows of a device: `reported` slots, `counters`, `presence` …"""
        known: dict[str, Any] = self.api.get(f"/devices/{device}")
        return known

    @contextlib.contextmanager
    def thief(self) -> Iterator[Callable[[str, bytes], None]]:
        """Publish with the manager's stolen broker credential; gives `put(topic, payload)`, which waits until the broker has it.

        Thief and manager have one name, so that each of them throws the other out: a message may be put twice.
        """
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(self._connected())]

            def put(topic: str, data: bytes) -> None:
                while True:
                    try:
                        told = clients[-1].publish(topic, data, 1)
                        told.wait_for_publish(2)
                        if told.is_published():
                            return
                    except (RuntimeError, ValueError):
                        pass
                    clients.append(stack.enter_context(self._connected()))

            yield put

    def retained(self, device: str) -> bytes:
        """The retained order of a device."""
        return bytes(until(lambda: self._ask_retained(device), "the retained order"))

    def _ask_retained(self, device: str) -> bytes | None:
        found: queue.Queue[bytes] = queue.Queue()
        with self._connected() as client, contextlib.suppress(queue.Empty):
            client.on_message = lambda _client, _data, message: found.put(bytes(message.payload))
            client.subscribe(topics.down(device, "desired"), 1)
            return found.get(timeout=2)
        return None

    @contextlib.contextmanager
    def _connected(self) -> Iterator[mqtt.Client]:
        """A client that was let in; the manager, whose name it bears, may throw it out at any time, and then it stays out."""
        client = until(self._enter, "the thief's connection")
        yield client
        client.disconnect()
        client.loop_stop()

    def _enter(self) -> mqtt.Client | None:
        pki, port, entered = self.root / "pki", int(self.ready["mqtt"].rsplit(":", 1)[1]), threading.Event()
        name = f"thief-{secrets.token_hex(4)}"
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, reconnect_on_failure=False)
        client.tls_set(str(pki / "ca.crt"), str(pki / "manager.crt"), str(pki / "manager.key"))
        client.max_queued_messages_set(0)
        client.on_connect = lambda _client, _data, _flags, code, _props: code.is_failure or entered.set()
        client.connect("127.0.0.1", port)
        client.loop_start()
        if entered.wait(2):
            return client
        client.disconnect()
        client.loop_stop()
        return None


def _make_model(path: Path, seed: int, hidden: int) -> None:
    """A classifier of four well separated classes, and beside it rows to calibrate and to evaluate it with."""
    rng = np.random.default_rng(seed)
    first = (rng.normal(size=(FEATURES, hidden)) / 4).astype(np.float32)
    second = (rng.normal(size=(hidden, 4)) / np.sqrt(hidden)).astype(np.float32)
    x = rng.normal(size=(8000, FEATURES)).astype(np.float32) * 3
    scores = np.maximum(x @ first, 0) @ second
    clear = np.diff(np.sort(scores, axis=1)[:, -2:], axis=1)[:, 0] > 0.2
    x, scores = x[clear][:1600], scores[clear][:1600]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]), helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"]),
    ]  # fmt: skip
    make = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [make("x", TensorProto.FLOAT, [None, FEATURES])], [make("y", TensorProto.FLOAT, [None, 4])],
        [numpy_helper.from_array(first, "a"), numpy_helper.from_array(second, "b")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), str(path))
    np.savez(path.with_suffix(".calib.npz"), x=x[:400])
    np.savez(path.with_suffix(".eval.npz"), x=x[400:], y=scores[400:].argmax(1))


@dataclass(frozen=True)
class Done:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


@dataclass
class Agent:
    """One device: its folder, and its process while it runs."""

    site: Site
    name: str
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    port: int = 0
    said: list[bytes] = field(default_factory=list)

    def run(self, *words: str) -> Done:
        """`edgeops-agent run`, which must end by itself."""
        argv = [sys.executable, "-m", "edgeops_agent.cli", "run", *words]
        done = subprocess.run(argv, env=self.site.env, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        return Done(done.returncode, done.stdout, done.stderr)

    def command(self, *words: str, text: str = "") -> Done:
        """Another `edgeops-agent` command, in this process exactly as the console script runs it."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO(text))
            try:
                code = agent_main(list(words))
            except SystemExit as end:
                code = int(end.code or 0)
        return Done(code, out.getvalue(), err.getvalue())

    def enroll(self) -> None:
        """Register at the manager and redeem the token."""
        done = self.command("enroll", self.site.register(self.name), "--state", str(self.folder), "--json")
        assert done.code == 0, done.err

    @property
    def log(self) -> str:
        """What the agent has said so far."""
        return b"".join(self.said).decode(errors="replace")

    def start(self, *more: str, wait: bool = True, files: int = resource.RLIM_INFINITY, log: Any = None) -> None:
        """Run the agent; waits until it says where it serves. `files` bounds the size of what it writes, `log` takes its output."""
        argv = [sys.executable, "-m", "edgeops_agent.cli", "run", "--state", str(self.folder), "--port", str(self.port)]
        said = self.log.count("serves")
        # A pipe, since a file would be limited too.
        self.process = subprocess.Popen(
            [*argv, "--telemetry-s", "1", *more], env=self.site.env, stdin=subprocess.DEVNULL, stdout=log or subprocess.PIPE,
            stderr=subprocess.STDOUT, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (files, resource.RLIM_INFINITY)),
        )  # fmt: skip
        if self.process.stdout is not None:
            threading.Thread(target=self.said.extend, args=(self.process.stdout,), daemon=True).start()
        if wait:
            until(lambda: self.log.count("serves") > said or (self.process and self.process.poll() is not None), "the agent")
            assert self.process.poll() is None, self.log[-2000:]
            if not self.port:
                self.port = int(json.loads((self.folder / "endpoint.json").read_text())["http"].rsplit(":", 1)[1])

    def limit_files(self, size: int) -> None:
        """From now on no file of the running agent may grow beyond `size` bytes: the kernel refuses, as a full disk does."""
        assert self.process is not None
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size if size >= 0 else hard, hard))

    def leftovers(self) -> list[str]:
        """Half-written files in its folder."""
        return [str(path) for path in self.folder.rglob("*") if path.name.endswith(".tmp") or path.parent.name == "partial"]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE_S)
        self.process = None
        return code

    def workers(self) -> list[psutil.Process]:
        """The processes it has started."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    def record(self) -> Record:
        """The newest record on disk."""
        return StateFolder(self.folder).load()

    def main(self) -> Any:
        """The slot `main` as recorded."""
        return self.record().slots["main"]

    def watch(self, look: Callable[[Any], bool]) -> None:
        """Wait for a moment of the slot `main`, looking as often as possible."""
        deadline = time.monotonic() + PATIENCE_S
        while not look(self.record().slots.get("main")):
            assert time.monotonic() < deadline, f"the moment did not come; log: {self.log[-1500:]}"

    def runs(self) -> str:
        """What is committed, as NAME:VERSION."""
        slot = self.record().slots.get("main")
        return f"{slot.current.model}:{slot.current.version}" if slot and slot.current else ""

    def ended(self, verdict: str, release: str = "") -> Any:
        """Wait until the newest order has ended so; its outcome."""
        def look() -> Any:
            slot = self.record().slots.get("main")
            last = slot.last if slot and slot.phase == "idle" else None
            return last if last and last.verdict == verdict and (not release or self.runs() == release) else None

        return until(look, f"{self.name} to end {verdict} {release}; log: {self.log[-1500:]}")

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """One HTTP request to the local endpoint: status and JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            reply = connection.getresponse()
            data = reply.read()
        return reply.status, json.loads(data) if data else None

    def serves(self) -> str:
        """The model that answers now, as NAME:VERSION, found by asking for an inference; "" when nobody does."""
        tensor = {"name": "x", "shape": list(X.shape), "datatype": "FP32", "data": X.ravel().tolist()}
        for model in {name.partition(":")[0] for name in self.site.released}:
            with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
                status, answer = self.ask("POST", f"/v2/models/{model}/infer", json.dumps({"inputs": [tensor]}).encode())
                if status == 200:
                    return f"{answer['model_name']}:{answer['model_version']}"
        return ""


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])
