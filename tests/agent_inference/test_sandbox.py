"""What a worker can no longer do: read secrets, write, start programs, connect; what it still can: serve."""

import os
import subprocess
import sys

import numpy as np
import pytest

from edgeops_agent.client import Client

SCRIPT = """
import ctypes, os, pathlib, socket, subprocess, sys
from edgeops_agent.shell.confine import die_with_parent
from edgeops_agent.shell.sandbox import enclose
die_with_parent(os.getppid())
folder = pathlib.Path(sys.argv[1])
def tried(what):
    try:
        what()
        return "did"
    except PermissionError:
        return "denied"
acts = {
    "read-model": lambda: (folder / "model").read_text(),
    "read-secret": lambda: (folder / "secret").read_text(),
    "write": lambda: (folder / "model").write_text("x"),
    "create": lambda: (folder / "new").write_text("x"),
    "run": lambda: subprocess.run(["/bin/true"], check=True),
    "connect": lambda: socket.create_connection(("127.0.0.1", int(sys.argv[2]))).close(),
}
before = {name: tried(act) for name, act in acts.items()}
print(not enclose([folder / "model"]), set(before.values()), *(tried(act) for act in acts.values()), sep="|")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Landlock is Linux's")
def test_enclosed_process(tmp_path, tcp):
    """After enclosing, everything but reading the model is denied; before, all of it worked."""
    for name in ("model", "secret"):
        (tmp_path / name).write_text("x")
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(tcp.getsockname()[1])]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().split("|")
    if printed[0] == "False":
        pytest.skip("this kernel has no Landlock")
    assert printed[1] == "{'did'}"
    assert printed[2:] == ["did", "denied", "denied", "denied", "denied", "denied"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_worker_gains_nothing(shop, serving, unix):
    """A real worker has no core dumps, no new privileges, a bounded address space, and still serves."""
    worker = serving(shop.linear()[0], [unix[0]])
    limits = {line[:26].strip(): line[26:].split() for line in _proc(worker.pid, "limits")[1:]}
    assert limits["Max core file size"][0] == "0" and limits["Max address space"][0] != "unlimited"
    assert "NoNewPrivs:\t1" in _proc(worker.pid, "status")
    with Client(unix[1], "linear") as client:
        assert client.infer({"x": np.zeros((1, 4), np.float32)})["y"].shape == (1, 3)


def _proc(pid, name):
    with os.fdopen(os.open(f"/proc/{pid}/{name}", os.O_RDONLY)) as file:
        return file.read().splitlines()
