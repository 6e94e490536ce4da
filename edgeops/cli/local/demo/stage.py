"""The stage: a scratch folder, the commands run on it, the processes started on it and ended with it."""

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgeops.wire.errors import EdgeopsError, Unreachable

from ...signals import deferred

SCRIPTS = Path(sys.executable).parent
PATIENCE_S = 120.0
FOREGROUND = "the command at work"


class Surprise(EdgeopsError):
    """A step of the demo did not go as it must."""


class Stage:
    """Runs `edgeops …` and `edgeops-agent …` as a user would, in an environment of their own; `agents`: where the latter is."""

    def __init__(self, folder: Path, say: Callable[[str], None], agents: Path = SCRIPTS) -> None:
        self.folder, self.say = folder, say
        self._places = {"edgeops": SCRIPTS, "python": SCRIPTS, "edgeops-agent": agents, "python3": agents}
        self.env = {**os.environ, "EDGEOPS_CONFIG": str(folder / "config" / "contexts.toml"), "PYTHONUNBUFFERED": "1"}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        (folder / "config").mkdir(exist_ok=True)

    @property
    def invitation(self) -> str:
        """The line after which the commands shown can be typed in another terminal."""
        return f"cd {self.folder}; export PATH={SCRIPTS}:$PATH EDGEOPS_CONFIG={self.env['EDGEOPS_CONFIG']}"

    def edgeops(self, *words: str, expect: int = 0, quiet: bool = False) -> dict[str, Any]:
        """Run one `edgeops` command with `--json`; returns its object. Raises Surprise on another exit code than `expect`."""
        if not quiet:
            self.say(f"  $ edgeops {shlex.join(words)}")
        return self._run(["edgeops", *words, "--json"], expect)

    def show(self, *words: str, expect: int = 0) -> None:
        """Run one `edgeops` command as a person would and pass on what it prints, line by line; Surprise as above."""
        self.say(f"  $ edgeops {shlex.join(words)}")
        argv, lines = ["edgeops", *words], []
        process = self._begin(FOREGROUND, argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for line in io.TextIOWrapper(process.stdout or io.BytesIO(), "utf-8"):
            lines.append(line)
            self.say(f"    {line.rstrip()}")
        self._end(argv, process, expect, "".join(lines[-20:]))

    def agent(self, *words: str) -> dict[str, Any]:
        """Run one `edgeops-agent` command to its end."""
        return self._run(["edgeops-agent", *words, "--json"], 0)

    def python(self, *words: str) -> None:
        """Run a Python module in this environment."""
        self.say(f"  $ python {shlex.join(words)}")
        for line in self._output(["python", *words], 0).splitlines():
            self.say(f"    {line}")

    def _run(self, argv: list[str], expect: int) -> dict[str, Any]:
        lines = self._output(argv, expect).splitlines()
        data = json.loads(lines[-1]) if lines else {}
        return data if isinstance(data, dict) else {"items": data}

    def _output(self, argv: list[str], expect: int) -> str:
        process = self._begin(FOREGROUND, argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = (stream.decode("utf-8", "replace").strip() for stream in process.communicate())
        self._end(argv, process, expect, (err or out)[-2000:])
        return out

    def _begin(self, name: str, argv: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
        """Start a child and note it in one go: interrupted between the two, it would be left behind."""
        with deferred():
            process = subprocess.Popen(self._at(argv), cwd=self.folder, env=self.env, start_new_session=True, **streams)
            self._running[name] = process
        return process

    def _end(self, argv: Sequence[str], process: subprocess.Popen[bytes], expect: int, said: str) -> None:
        code = process.wait()
        del self._running[FOREGROUND]
        if code != expect:
            raise Surprise("demo-command", f"{shlex.join(argv)} exited {code}, not {expect}: {said}")

    def _at(self, argv: Sequence[str]) -> list[str]:
        return [str(self._places[argv[0]] / argv[0]), *argv[1:]]

    def spawn(self, name: str, *argv: str) -> None:
        """Start a process of the stage; its output goes to logs/NAME.log."""
        log = (self.folder / "logs" / f"{name}.log").open("ab")
        with log:
            self._begin(name, argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def check_alive(self) -> None:
        """Raise Surprise when a process of the stage has ended."""
        for name, process in self._running.items():
            if process.poll() is not None:
                tail = (self.folder / "logs" / f"{name}.log").read_text(errors="replace")[-2000:]
                raise Surprise("demo-process", f"{name} ended with exit code {process.returncode}: {tail}")

    def until(self, what: str, ready: Callable[[], Any], seconds: float = PATIENCE_S) -> Any:
        """Poll `ready` until it is true (returned) or `seconds` have passed (Surprise)."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check_alive()
            try:
                if found := ready():
                    return found
            except Unreachable:
                pass
            time.sleep(0.2)
        raise Surprise("demo-deadline", f"waited {seconds:g} s in vain for: {what}; see {self.folder / 'logs'}")

    def close(self) -> None:
        """End every process, newest first, gently and then not; leaves nothing running."""
        for process in reversed(self._running.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for name, process in reversed(self._running.items()):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                self.say(f"  {name} did not end; killing it")
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)
        self._running.clear()
