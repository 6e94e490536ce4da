"""Runs a foreign program and ends it as soon as our own process is gone: `python -I -S leash.py PROGRAM ARGS...`.

Standard input is the leash: its end (our process stopped it, or died in any way) stops the program; an `H` line sends it SIGHUP.
Its output comes back on standard output without the lines written for every message. On Linux the kernel also kills the
program should this process be killed. Knows nothing of MQTT beyond which log lines are noise; imports the standard library only.
"""

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading

_NOISE = re.compile(rb"^(?:Received|Sending) (?:PUB|PING)[^\n]*\n", re.MULTILINE)
_PR_SET_PDEATHSIG = 1
_PATIENCE_S = 5.0


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _pump(source: int) -> None:
    rest = b""
    while chunk := os.read(source, 1 << 16):
        whole, cut, rest = (rest + chunk).rpartition(b"\n")
        kept = _NOISE.sub(b"", whole + cut)
        try:
            if kept:
                os.write(1, kept)
        except BrokenPipeError:
            return


def _obey(child: "subprocess.Popen[bytes]") -> None:
    for order in sys.stdin.buffer:
        if order.strip() == b"H":
            child.send_signal(signal.SIGHUP)
    child.terminate()


def main(command: list[str]) -> int:
    """Run `command` until it ends or standard input does; returns its exit code."""
    linux = sys.platform == "linux"
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=_die_with_parent if linux else None,
    )
    assert child.stdout is not None
    pump = threading.Thread(target=_pump, args=(child.stdout.fileno(),), daemon=True)
    pump.start()
    obey = threading.Thread(target=_obey, args=(child,), daemon=True)
    obey.start()
    while child.poll() is None:
        obey.join(timeout=0.2)
        if not obey.is_alive():
            try:
                child.wait(timeout=_PATIENCE_S)
            except subprocess.TimeoutExpired:
                child.kill()
    pump.join(timeout=1.0)
    return child.returncode


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = main(sys.argv[1:])
    # A reader thread may still hold the lock of standard input, which a normal exit would wait for.
    os._exit(code if 0 <= code < 256 else 1)
