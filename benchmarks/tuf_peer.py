"""The process in which python-tuf runs, in an environment of its own under .bench; spoken to in JSON lines (tuf_fleet.py)."""

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from edgeops.wire.errors import Unreachable

ROOT = Path(__file__).resolve().parents[1]
PEER = ("tuf==7.0.1", "securesystemslib[crypto]==1.6.0")


class Peer:
    """The peer's process: one request a line, one JSON answer a line."""

    def __init__(self) -> None:
        words = [_peer_python(), str(Path(__file__).with_name("tuf_fleet.py"))]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, request: str) -> Any:
        """The answer to a request; ends the benchmark when the peer has ended."""
        if self._process.stdin is None or self._process.stdout is None:
            raise Unreachable("no-peer", "the peer has no pipes")
        self._process.stdin.write(f"{request}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise Unreachable("no-peer", f"the TUF peer ended with exit code {self._process.wait()} when asked {request!r}")
        return json.loads(line)

    def close(self) -> None:
        """End it and wait."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _peer_python() -> str:
    """The interpreter of the peer's environment, which is built the first time and when the versions above change."""
    folder, wanted = ROOT / ".bench" / "tuf", "\n".join(PEER)
    python, stamp = folder / "bin" / "python", folder / "edgeops-bench.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"building {folder} with {', '.join(PEER)} …", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        done = subprocess.run([python, "-m", "pip", "install", "--quiet", *PEER], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unreachable("no-peer", f"pip could not install the peer into {folder}: {done.stderr.strip()[-500:]}")
        stamp.write_text(wanted)
    return str(python)
