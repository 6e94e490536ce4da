"""Straws as a process of their own against a real manager and broker: TLS, tokens, frames, restarts, ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgeops.cli import context
from edgeops.cli.client import Client, items
from edgeops.cli.remote.releases import upload

from ..manager.house import make_release, release_signer

pytestmark = pytest.mark.real
PATIENCE_S = 60.0
SCRIPTS = Path(sys.executable).parent
STRAWS = [sys.executable, "-m", "edgeops_agent.sim"]


@dataclass(frozen=True)
class Site:
    """A running manager: its folder, the environment its commands need."""

    folder: Path
    env: dict[str, str]

    def edgeops(self, *words: str) -> dict[str, Any]:
        """One command with --json; its object."""
        done = subprocess.run(
            [SCRIPTS / "edgeops", *words, "--json"], env=self.env, cwd=self.folder, capture_output=True, text=True,
            timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def client(self) -> Client:
        """The API as the command line uses it."""
        return Client(context.load(Path(self.env["EDGEOPS_CONFIG"])).pick())

    def tokens(self, *names: str) -> str:
        """Registered devices' tokens, one a line."""
        return "".join(self.edgeops("device", "register", name, "--label", "kind=straw")["token"] + "\n" for name in names)

    def devices(self) -> dict[str, dict[str, Any]]:
        """Devices by id."""
        client = self.client()
        found = items(client.get("/devices"), "devices")
        client.close()
        return {device["id"]: device for device in found}

    def publish(self, version: int) -> str:
        """A signed release whose bytes mean nothing but hash rightly; its digest."""
        made = make_release(release_signer(self.folder / "m"), version, size=500_000)
        client = self.client()
        answer = upload(client, made.envelope, made.objects.__getitem__, lambda size: None)
        client.close()
        return str(answer["digest"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A manager that is up; stopped afterwards."""
    folder = tmp_path_factory.mktemp("real")
    made = Site(folder, {**os.environ, "EDGEOPS_CONFIG": str(folder / "contexts.toml"), "PYTHONUNBUFFERED": "1"})
    made.edgeops("init", "m", "--fleet", "testfleet", "--address", "127.0.0.1", "--https-port", "0", "--mqtt-port", "0")
    words = [SCRIPTS / "edgeops", "up", "m", "--json"]
    manager = subprocess.Popen(words, env=made.env, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert manager.stdout and json.loads(manager.stdout.readline())["ready"] is True
    yield made
    manager.send_signal(signal.SIGTERM)
    manager.communicate(timeout=PATIENCE_S)


class Straws:
    """A process of straws; its milestones are read as they come."""

    def __init__(self, *words: str, tokens: str) -> None:
        pipe = subprocess.PIPE
        command = [*STRAWS, "--tokens", "-", "--json", *words]
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert self.process.stdin
        self.process.stdin.write(tokens)
        self.process.stdin.close()
        self.process.stdin = None

    def milestone(self, name: str) -> dict[str, Any]:
        """Read on to this milestone."""
        assert self.process.stdout
        for line in self.process.stdout:
            told = dict(json.loads(line))
            if told.get("milestone") == name:
                return told
        pytest.fail(f"ended without {name}: {self.process.communicate()[1]}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End them; the exit code."""
        self.process.send_signal(number)
        self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode


def until(true: Callable[[], bool]) -> None:
    """Poll with a deadline."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_five_straws_take_a_release(site: Site, tmp_path: Path) -> None:
    """Enrolled by tokens over HTTPS, online over mutual TLS in one thread, they take a rollout to its end; stopped, they have said
    goodbye; started again from their folder they are the same devices with the same release, though their tokens are spent."""
    names = [f"straw-{number}" for number in range(5)]
    tokens = site.tokens(*names)
    straws = Straws("--state", str(tmp_path), tokens=tokens)
    online = straws.milestone("online")
    assert (online["devices"], online["threads"]) == (5, 1)
    site.publish(1)
    how = ("--waves", "1,100%", "--dwell-s", "0", "--trial-window-s", "2")
    rollout = site.edgeops("rollout", "start", "digits:1", "--to", "kind=straw", *how)
    site.edgeops("rollout", "watch", rollout["id"], "--timeout", str(PATIENCE_S))
    shown = site.edgeops("rollout", "show", rollout["id"])
    assert (shown["status"], shown["counts"]["unproven"]) == ("finished", 5)
    assert shown["delivery"][0]["published"] == shown["delivery"][0]["frames"]
    until(lambda: all(site.devices()[name]["slots"] == {"main": "digits:1"} for name in names))
    first = site.devices()
    assert all(first[name]["facts"] == {"simulated": True} for name in names)
    assert straws.stop() == 0
    until(lambda: all(site.devices()[name]["presence"] == "offline" for name in names))

    again = Straws("--state", str(tmp_path), tokens=tokens)
    again.milestone("online")
    until(lambda: all(site.devices()[name]["reported_at"] > first[name]["reported_at"] for name in names))
    for name, device in site.devices().items():
        assert (device["slots"], device["incarnation"], device["presence"]) == ({"main": "digits:1"}, 1, "online"), name
    assert again.stop(signal.SIGINT) == 0


def test_bad_tokens_are_told(site: Site) -> None:
    """A malformed token spends none of the others; a spent one is refused by name: both exit 2."""
    tokens = site.tokens("good-1", "good-2")
    half = Straws(tokens=f"{tokens}edgeops1.nonsense\n")
    out, err = half.process.communicate(timeout=PATIENCE_S)
    assert (half.process.returncode, json.loads(out)["error"]["reason"]) == (2, "token-malformed")
    assert "token 3" in err
    assert {site.devices()[name]["status"] for name in ("good-1", "good-2")} == {"registered"}
    used = Straws(tokens=tokens)
    used.milestone("online")
    assert used.stop() == 0
    spent = Straws(tokens=tokens)
    _, err = spent.process.communicate(timeout=PATIENCE_S)
    assert spent.process.returncode == 2
    assert "good-1 (token 1 of 2)" in err and "Traceback" not in err
    none = Straws(tokens="\n")
    assert "[no-tokens]" in none.process.communicate(timeout=PATIENCE_S)[1]


def test_they_end_with_their_parent(site: Site, tmp_path: Path) -> None:
    """Straws started with --parent are gone soon after that process was killed, without any chance to tell them."""
    (tmp_path / "tokens").write_text(site.tokens("orphan"))
    script = (
        "import os, subprocess, sys, time\n"
        "print(subprocess.Popen([*sys.argv[1:], '--parent', str(os.getpid())], stdout=2).pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    words = [sys.executable, "-c", script, *STRAWS, "--tokens", str(tmp_path / "tokens")]
    with (tmp_path / "log").open("wb") as log:
        parent = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log)
    assert parent.stdout
    straws = int(parent.stdout.readline())
    until(lambda: b"1 straw devices online" in (tmp_path / "log").read_bytes())
    parent.kill()
    parent.communicate(timeout=PATIENCE_S)
    until(lambda: not _lives(straws))
    assert (tmp_path / "log").read_text().splitlines()[-1] == "stopped"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
