"""A manager with mosquitto and one agent, with a line between them that can fail."""

import contextlib
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from edgeops.cli.remote.releases import upload
from edgeops.manager.layout import Layout
from edgeops.manager.settings import load
from edgeops.manager.setup import load_signer

from ..agent.real.site import PATIENCE_S, Agent, Site, until
from .line import Line
from .models import NAME, Tiny, X, tiny

FAR, NEAR = "127.0.0.2", "127.0.0.1"
"""Where the agent believes its manager to be, and where it is: between the two are our lines."""
HIDDEN = 8_000


@dataclass
class Scene:
    """All of it. `source` is a folder with another copy of the agent's package, to run instead of the product's."""

    folder: Path
    source: Path | None = None
    site: Site = field(init=False)
    agent: Agent = field(init=False)
    lines: tuple[Line, ...] = ()
    versions: int = 0

    def begin(self) -> None:
        """Manager, lines, agent."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.site = Site(self.folder)
        words = ("--fleet", "berlin", "--address", FAR, "--https-port", "0", "--mqtt-port", "0")
        self.site.edgeops("init", "m", *words)
        for path, changes in (
            (self.site.root / "edgeops.toml", {"tick_ms = 1000": "tick_ms = 100", "frames_per_s = 200": "frames_per_s = 20",
                                               "want_window_ms = 500": "want_window_ms = 50"}),
            (self.folder / "contexts.toml", {FAR: NEAR}),
        ):  # fmt: skip
            text = path.read_text()
            for old, new in changes.items():
                assert old in text, f"{path.name} has no {old}"
                text = text.replace(old, new)
            path.write_text(text)
        settings = load(self.site.root / "edgeops.toml")
        ports = settings.mqtt_port, settings.https_port
        self.lines = tuple(Line((FAR, port), (NEAR, port)) for port in ports)
        self.site.up()
        self.agent = Agent(self.site, "pi-001", self.folder / "pi")
        self.agent.enroll()
        self.start_agent()

    def end(self) -> None:
        """Nothing stays."""
        if (process := self.agent.process) is not None and process.poll() is None:
            process.kill()
            process.wait()
        for line in self.lines:
            line.close()
        self.site.down()

    def start_agent(self) -> None:
        """Run the agent, and wait until it says where it serves."""
        before = self.told("start")
        argv = [sys.executable, "-P", str(Path(__file__).with_name("impatient.py")), "run", "--state", str(self.agent.folder)]
        argv += ["--port", str(self.agent.port), "--telemetry-s", "1"]
        env = self.site.env | ({"PYTHONPATH": str(self.source)} if self.source else {})
        with (self.folder / "agent.out").open("ab") as out:
            self.agent.process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        until(lambda: len(self.told("start")) > len(before), "the agent to serve")
        if not self.agent.port:
            self.agent.port = int(json.loads((self.agent.folder / "endpoint.json").read_text())["http"].rsplit(":", 1)[1])

    def kill_broker(self) -> None:
        """SIGKILL; the manager ends with its broker, and is not up before `site.up`."""
        manager = self.site.process
        assert manager is not None
        broker = next(one for one in psutil.Process(manager.pid).children(recursive=True) if one.name() == "mosquitto")
        broker.kill()
        manager.communicate(timeout=PATIENCE_S)
        self.site.process = None
        self.site.__dict__.pop("api", None)  # its connections are gone

    def publish(self) -> Tiny:
        """A release nobody has seen before."""
        self.versions += 1
        signer = load_signer(Layout(self.site.root).key("release"))
        made = tiny(signer, "berlin", self.versions, HIDDEN, int(time.time()))
        upload(self.site.api, made.envelope, made.objects.__getitem__, lambda size: None)
        self.site.released.add(made.name)
        return made

    # -- what they leave

    def told(self, event: str, **fields: Any) -> list[Mapping[str, Any]]:
        """Lines of the agent's log."""
        found, wanted = list[Mapping[str, Any]](), {"event": event, **fields}
        for path in (self.agent.folder / "log" / "agent.log.1", self.agent.folder / "log" / "agent.log"):
            with contextlib.suppress(FileNotFoundError):
                for text in path.read_text(errors="replace").splitlines():
                    if all(str(value) in text for value in wanted.values()) and (line := _parsed(text)):
                        found += [line] if wanted.items() <= line.items() else []
        return found

    def known(self, rollout: str) -> tuple[str, str]:
        """What the manager's database has of the device in this rollout: status and verdict, also while nothing is up."""
        path = next(self.site.root.glob("*.db"))
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=20)) as database:
            row = database.execute("SELECT status, verdict FROM assignments WHERE rollout = ?", (rollout,)).fetchone()
        return tuple(row) if row else ("", "")

    def answers(self, release: Tiny) -> bool:
        """Whether the agent answers with this release's numbers."""
        tensor = {"name": "x", "shape": list(X.shape), "datatype": "FP32", "data": X.ravel().tolist()}
        with contextlib.suppress(OSError, ValueError):
            status, answer = self.agent.ask("POST", f"/v2/models/{NAME}/infer", json.dumps({"inputs": [tensor]}).encode())
            if status == 200 and answer["model_version"] == str(release.version):
                return bool(np.allclose(answer["outputs"][0]["data"], release.answer.ravel(), rtol=1e-3, atol=1e-4))
        return False


def _parsed(text: str) -> Mapping[str, Any] | None:
    """A line of the log; None for what a killed agent has left of one."""
    try:
        line: Mapping[str, Any] = json.loads(text)
        return line
    except ValueError:
        return None


@contextlib.contextmanager
def scene(folder: Path, source: Path | None = None) -> Iterator[Scene]:
    """A scene that is up."""
    made = Scene(folder, source)
    try:
        made.begin()
        yield made
    finally:
        if hasattr(made, "agent"):
            made.end()
        elif hasattr(made, "site"):
            made.site.down()


