"""A real manager with real straw devices whose ears are tapped: every byte that the broker delivers to any of them is kept.

The tap sits in the devices, not on the broker: there only the manager may read everything, and a second client of that name would
push the first one out. What a tap in every device hears is also exactly what the device pays for, repeats and all.
"""

import csv
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from edgeops.cli.local.demo.stage import Stage, Surprise
from edgeops.forge.flow import add_model
from edgeops.forge.gate import Gates
from edgeops.forge.trial import Options
from edgeops.wire import topics
from edgeops.wire.messages import Bundle
from edgeops_agent.sim import straw as straw_module
from edgeops_agent.sim.host import Host, enrol_all

SHELF = 64 << 20
QUIET_S, DEADLINE_S = 2.0, 120.0
ONLINE = "online"
# Variants by version, whatever this machine's int8 speed: with the speed gate open int8 passes too.
WAYS = {1: Options(variants=("store_i8", "fp32")), 2: Options(gates=Gates(min_speed=0.0))}
QUICK = ("--waves", "100%", "--dwell-s", "1", "--trial-window-s", "1", "--max-failures", "0", "--success-fraction", "1")


@dataclass(frozen=True, slots=True)
class Heard:
    """One message as one device got it; `record` is what the device held before it read an order (pickled, else empty)."""

    device: str
    topic: str
    payload: bytes
    record: bytes = b""

    @property
    def is_frame(self) -> bool:
        """Whether these are bytes of a model, not metadata."""
        parsed = topics.parse(self.topic)
        return isinstance(parsed, topics.FrameTopic) or parsed.noun == "blk"

    @property
    def on_the_wire(self) -> int:
        """Bytes of the MQTT 3.1.1 PUBLISH packet: fixed header, topic, packet id (QoS 1), payload."""
        rest = 2 + len(self.topic) + (0 if "/b/" in self.topic else 2) + len(self.payload)
        return 1 + max(1, -(-rest.bit_length() // 7)) + rest

    def documents(self) -> tuple[tuple[str, bytes], ...]:
        """The signed documents in it, by kind."""
        parsed = topics.parse(self.topic)
        if isinstance(parsed, topics.FrameTopic) or parsed.noun == "blk":
            return ()
        return (("command", self.payload),) if parsed.noun == "cmd" else Bundle.decode(self.payload).documents


def live(tokens: list[str], root: Path, told: Connection, stop: Event, parent: int) -> None:
    """The straws' process: enrol and drive them, telling of every message before the device reads it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    really = straw_module.Straw.take

    def take(self: straw_module.Straw, topic: str, data: bytes) -> None:
        before = pickle.dumps(self.record) if topic.endswith("/desired") else b""
        told.send(Heard(self.id, topic, data, before))
        really(self, topic, data)

    straw_module.Straw.take = take  # type: ignore[method-assign]
    folders = enrol_all(tokens, root, lambda _done: None)
    host = Host(folders, root / ".shelf", SHELF, lambda text: print(text, file=sys.stderr))
    host.run(lambda _count: told.send(ONLINE), lambda: not stop.is_set() and os.getppid() == parent)


class Tap:
    """The straws, tapped. `heard` grows while they run; a position in it marks a moment."""

    def __init__(self, tokens: list[str], root: Path) -> None:
        self._tokens, self._root = tokens, root
        self.heard: list[Heard] = []
        self._last = time.monotonic()
        self._online = threading.Event()
        self._process: BaseProcess | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Run the straws until all are online."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        self._stop = context.Event()
        self._online.clear()
        self._process = context.Process(target=live, args=(self._tokens, self._root, theirs, self._stop, os.getpid()))
        self._process.start()
        theirs.close()
        self._reader = threading.Thread(target=self._read, args=(ours,), daemon=True)
        self._reader.start()
        if not self._online.wait(DEADLINE_S):
            raise SystemExit(f"the {len(self._tokens)} straw devices did not all come online within {DEADLINE_S:.0f} s")

    def _read(self, told: Connection) -> None:
        while True:
            try:
                news = told.recv()
            except EOFError:
                return
            if news == ONLINE:
                self._online.set()
                continue
            self.heard.append(news)
            self._last = time.monotonic()

    def stop(self) -> None:
        """End the straws' process and wait for it."""
        if self._process is None or self._reader is None:
            return
        self._stop.set()
        self._process.join(30)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._reader.join(10)
        self._process = None

    def mark(self) -> int:
        """This moment, once nobody has heard anything for a while."""
        deadline, self._last = time.monotonic() + DEADLINE_S, time.monotonic()
        while time.monotonic() - self._last < QUIET_S:
            if time.monotonic() > deadline:
                raise SystemExit("the fleet never falls silent, so nothing can be told apart")
            time.sleep(0.1)
        return len(self.heard)


@dataclass(frozen=True, slots=True)
class Flown:
    """What was heard, and the moments: all online, all on version 1, one on 2, another one on 2, all back after a restart."""

    heard: list[Heard]
    marks: dict[str, int]
    devices: list[str]
    broker: str
    objects: dict[str, bytes]

    def between(self, begin: str, end: str) -> list[Heard]:
        """The messages between two marks."""
        return self.heard[self.marks[begin] : self.marks[end]]

    def of(self, device: str, begin: str, end: str) -> list[Heard]:
        """The messages of one device between two marks."""
        return [heard for heard in self.between(begin, end) if heard.device == device]


def fly(devices: int, say: Callable[[str], None]) -> Flown:
    """Make a manager, two real releases and a fleet in a scratch folder; move one device, then another; leave nothing behind."""
    with tempfile.TemporaryDirectory(prefix="edgeops-bench-") as name:
        folder = Path(name)
        stage = Stage(folder, say)
        tap: Tap | None = None
        try:
            health = _found(stage)
            tap = Tap(_register(stage, devices), folder / "straws")
            return _move(stage, tap, names(devices), health["broker"]["kind"])
        finally:
            if tap is not None:
                tap.stop()
            stage.close()


def _found(stage: Stage) -> dict[str, Any]:
    stage.edgeops("init", "site", "--fleet", "bench", "--address", "127.0.0.1", "--https-port", "0", "--mqtt-port", "0")
    stage.spawn("manager", "edgeops", "up", "site")
    stage.python("-m", "edgeops.cli.local.demo.digits", "data", "--seed", "7")

    found: dict[str, Any] = stage.until("the manager answers", lambda: _health(stage), 60)
    for version in WAYS:
        _release(stage, version)
    return found


def _release(stage: Stage, version: int) -> None:
    data, folder = stage.folder / "data", f"releases/digits-{version}"
    add_model(
        data / f"digits-{version}.skops", name="digits", version=version, fleet="bench", calib=data / "calib.npz",
        evaluation=data / "eval.npz", out=stage.folder / folder, now=int(time.time()), reference=data / "reference.npz",
        options=WAYS[version],
    )  # fmt: skip
    stage.edgeops("release", "sign", folder, "--folder", "site")
    stage.edgeops("release", "upload", folder)


def _health(stage: Stage) -> dict[str, Any] | None:
    try:
        return stage.edgeops("health", quiet=True)
    except Surprise:
        return None  # not up yet


def _register(stage: Stage, devices: int) -> list[str]:
    listed = stage.folder / "straws.csv"
    with listed.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("id", "kind"))
        rows.writerows((name, "straw") for name in names(devices))
    return [device["token"] for device in stage.edgeops("device", "register", "--from", listed.name)["devices"]]


def names(devices: int) -> list[str]:
    """The device ids."""
    return [f"straw-{number:03d}" for number in range(1, devices + 1)]


def _move(stage: Stage, tap: Tap, devices: list[str], broker: str) -> Flown:
    marks: dict[str, int] = {"begin": 0}
    tap.start()
    marks["online"] = tap.mark()
    for version, to, mark in (("1", "all", "all 1"), ("2", f"id={devices[0]}", "one 2"), ("2", f"id={devices[1]}", "two 2")):
        started = stage.edgeops("rollout", "start", f"digits:{version}", "--to", to, *QUICK)
        stage.edgeops("rollout", "watch", started["id"], "--timeout", "90", quiet=True)
        marks[mark] = tap.mark()
    tap.stop()
    tap.start()
    marks["back"] = tap.mark()
    objects = {path.name: path.read_bytes() for path in stage.folder.glob("releases/*/objects/*")}
    return Flown(tap.heard, marks, devices, broker, objects)
