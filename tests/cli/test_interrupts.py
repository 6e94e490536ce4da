"""Ctrl-C and SIGTERM anywhere: the process ends, with its code, and leaves nothing behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

PATIENCE_S = 40.0
# While `package` is being imported Ctrl-C arrives, and the import swallows the exception, as some packages' imports do.
SWALLOWING = """
import os, signal, sys, time
class Swallowing:
    def find_spec(self, name, path=None, target=None):
        if name == {package!r}:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1)
            except KeyboardInterrupt:
                pass
sys.meta_path.insert(0, Swallowing())
sys.argv = ["edgeops", *{words!r}]
from edgeops.cli.entry import main
main()
"""
FAST = ("--https-port", "0", "--mqtt-port", "0", "--address", "127.0.0.1")


@pytest.fixture
def home(tmp_path: Path, config: Path, edgeops, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh manager's folder; the working folder is empty."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert edgeops("init", str(tmp_path / "m"), "--fleet", "berlin", *FAST).code == 0
    return tmp_path / "m"


@pytest.mark.parametrize("package", ["typer", "httpx", "fastapi", "uvicorn"])
def test_ctrl_c_while_loading_is_not_lost(home: Path, package: str):
    """An interrupt that falls into the import of a big package ends `up` all the same, at once and quietly."""
    code = SWALLOWING.format(package=package, words=["up", str(home)])
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr.splitlines()[-1]) == (130, "", "interrupted")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_model_add_leaves_no_scratch_folder(home: Path, digits, number: int, code: int):
    """Stopped in the middle of its work, `model add` takes its half-made release with it; with --json one object says so."""
    words = [sys.executable, "-m", "edgeops.cli.entry", "model", "add", "digits:1", *digits, "--folder", str(home), "--json"]
    scratch = Path.cwd() / "tmp"
    scratch.mkdir()
    env = {**os.environ, "TMPDIR": str(scratch)}
    child = subprocess.Popen([*words, "--no-upload"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    assert child.stderr is not None
    while "evaluate" not in (line := child.stderr.readline()):
        assert line, "it ended before it began to work"
    child.send_signal(number)
    out, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == code
    assert "Traceback" not in err
    assert number == signal.SIGTERM or json.loads(out)["error"]["exit_code"] == 130
    assert [*scratch.glob("edgeops*"), *Path("releases").iterdir()] == []


def test_a_killed_manager_leaves_no_broker(home: Path, edgeops):
    """After SIGKILL, which nobody can catch, the broker ends by itself and the folder can be served again."""
    words = [sys.executable, "-m", "edgeops.cli.entry", "up", str(home), "--json"]
    for _ in range(2):
        child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
        assert child.stdout is not None and json.loads(child.stdout.readline())["ready"] is True
        port = edgeops("health", "--json").json["broker"]["port"]
        child.kill()
        child.communicate(timeout=PATIENCE_S)
        deadline = time.monotonic() + 10
        while answers(port):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def answers(port: int) -> bool:
    """Whether anybody listens on the port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True
