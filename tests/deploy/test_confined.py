"""The installed agent and the manager behind their units' walls, for real: enrolled, given a model, asked for an inference."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from edgeops_agent.shell.disk import StateFolder

from ..agent.real.site import Agent, Site, until
from .conftest import ROOT, Package, need

AGENT, MANAGER = ROOT / "deploy" / "edgeops-agent.service", ROOT / "deploy" / "edgeops.service"
ENCLOSE = """
import sys
from pathlib import Path
from edgeops_agent.shell.sandbox import enclose
from edgeops_agent.shell.seccomp import deny_calls
print("landlock", enclose([]) or "holds")
try:
    Path(sys.argv[1]).read_text()
except PermissionError:
    print("nothing to read")
print("seccomp", deny_calls() or "holds")
"""


def confined(unit: Path, *argv: str | Path) -> list[str]:
    """The command that runs `argv` behind the walls of a unit."""
    need("systemd-analyze", "systemd")
    return [sys.executable, str(Path(__file__).parent / "confined.py"), str(unit), *map(str, argv)]


def enclosed(tmp_path: Path, *before: str) -> list[str]:
    """What came of it when a process shut itself in as a worker does; or the signal that ended it."""
    (tmp_path / "secret").write_text("x")
    argv = [*before, sys.executable, "-c", ENCLOSE, str(tmp_path / "secret")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return [str(done.returncode)] if done.returncode < 0 else done.stdout.splitlines()


def test_a_worker_can_shut_itself_in_behind_the_units_filter(tmp_path: Path) -> None:
    """Landlock and a filter of its own hold there as elsewhere; behind the filter this unit once had, neither did."""
    shut = ["landlock holds", "nothing to read", "seccomp holds"]
    if enclosed(tmp_path) != shut:
        pytest.skip("this kernel has no Landlock")
    assert enclosed(tmp_path, *confined(AGENT)) == shut
    text = re.sub(r"^SystemCallFilter=.*\n", "", AGENT.read_text(), flags=re.MULTILINE)
    once = tmp_path / "once.service"
    text += "SystemCallFilter=@system-service\nSystemCallFilter=~landlock_create_ruleset seccomp\n"  # as systemd before 255 has it
    once.write_text(text)
    found = enclosed(tmp_path, *confined(once))
    assert [line.split()[0] for line in found] == ["landlock", "seccomp"] and not any("holds" in line for line in found)
    once.write_text(text.replace("SystemCallErrorNumber=EPERM", ""))
    assert enclosed(tmp_path, *confined(once)) == [str(-signal.SIGSYS)]


def test_the_walls_stand() -> None:
    """What the unit forbids is refused with an error: writable code, namespaces, packet sockets, changing owners."""
    tried = """
import ctypes, mmap, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def code(result): return ctypes.get_errno() if result == -1 else 0
def packet():
    try: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
    except OSError as error: return error.errno
libc.mmap.restype = ctypes.c_long
print(code(libc.mmap(None, ctypes.c_size_t(4096), 7, 0x22, -1, ctypes.c_long(0))), code(libc.unshare(0x10000000)), packet(),
      code(libc.chown(b"/nowhere", 0, 0)))
"""
    done = subprocess.run(confined(AGENT, sys.executable, "-c", tried), capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1", "1", "97", "1"], done.stderr


@dataclass
class Installed(Agent):
    """The agent of the package, behind the unit's walls, told where to say that it is ready."""

    package: Package | None = None
    heard: socket.socket | None = None

    def launch(self, *words: str) -> "subprocess.Popen[str]":
        """Start a command of it."""
        assert self.package is not None and self.heard is not None
        told = {"PATH": os.environ["PATH"], "NOTIFY_SOCKET": self.heard.getsockname(), "WATCHDOG_USEC": "1000000"}
        return subprocess.Popen(
            confined(AGENT, self.package.command, *words), env=told, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A manager that runs behind the walls of its own unit."""
    made = Site(tmp_path)
    made.init()
    argv = confined(MANAGER, sys.executable, "-m", "edgeops.cli.entry", "up", "m", "--json")
    made.process = subprocess.Popen(argv, cwd=tmp_path, env=made.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert made.process.stdout is not None
    line = made.process.stdout.readline()
    assert line, made.process.communicate()[1]
    made.ready = json.loads(line)
    yield made
    made.down()


@pytest.mark.real
def test_the_installed_agent_takes_a_model_and_serves_it(package: Package, site: Site, tmp_path: Path) -> None:
    """Enrolled with a token and given a release, it commits it and answers; its worker has the same walls; it ends well."""
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.bind(str(tmp_path / "notify"))
    heard.settimeout(10)
    agent = Installed(site, "pi-deb", tmp_path / "state", package=package, heard=heard)
    state = ("--state", str(agent.folder))
    done = agent.launch("enroll", site.register(agent.name), *state)
    assert "enrolled pi-deb in fleet berlin" in done.communicate(timeout=30)[0]
    running = agent.launch("run", "--port", "0", "--telemetry-s", "1", *state)
    try:
        until((agent.folder / "endpoint.json").exists, "the agent to serve")
        agent.port = int(json.loads((agent.folder / "endpoint.json").read_text())["http"].rsplit(":", 1)[1])
        site.order(agent.name, "small:1")
        agent.ended("committed-unproven", "small:1")
        until(lambda: agent.serves() == "small:1", "an inference")
        (worker,) = psutil.Process(running.pid).children(recursive=True)
        for pid in (running.pid, worker.pid):
            told = Path(f"/proc/{pid}/status").read_text()
            assert "NoNewPrivs:\t1" in told and "Seccomp:\t2" in told
        assert str(package.root) in worker.exe() or str(package.python) in worker.cmdline()[0]
        if "Type=notify\n" in AGENT.read_text():
            assert heard.recv(100) == b"READY=1" and heard.recv(100) == b"WATCHDOG=1"
    finally:
        running.terminate()
        _, err = running.communicate(timeout=30)
    assert running.returncode == 0, err
    assert StateFolder(agent.folder).load().slots["main"].current is not None
