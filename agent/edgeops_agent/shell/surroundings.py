"""The doctor's look at the machine and at the way to the manager. It sends no MQTT: that would put out the agent that runs."""

import importlib.util
import json
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgeops.wire.errors import EdgeopsError, Misuse, Unreachable

from . import dropins, https, stated
from .finding import Finding
from .reach import Way
from .senses import folders_of
from .tls import check_expiry, timeless

PATIENCE_S, RUNTIME_S = 10.0, 60.0
NETWORK = "check this device's network, and whether the manager runs: `edgeops up`"
NOT_HEARD = {
    "facts.d": "mend it: until then nothing it states is believed, and conditions over it do not hold",
    "health.d": "mend it or take it away: until then every trial on this device fails",
}
UNIT = "edgeops-agent.service"
UNITS = tuple(Path(folder, UNIT) for folder in ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"))


def machine(root: Path) -> Iterator[Finding]:
    """What the agent needs of this machine."""
    yield _runtime()
    yield _confinement()
    yield from _dropped("facts.d", folders_of(root, "facts.d"), _check_fact)
    yield from _dropped("health.d", folders_of(root, "health.d"), _check_program)
    yield _unit()


def agent(root: Path, said: dict[str, Any] | None) -> Finding:
    """Whether an agent runs on this folder; whoever holds its lock and does not answer is stuck, or just starting."""
    if said is not None:
        return Finding("agent", "ok", f"runs, process {said.get('pid')}")
    if holder := _holder(root / "lock"):
        text = f"process {holder} holds the folder and does not answer"
        return Finding("agent", "warn", text, f"ask again in a moment; if it stays so, end process {holder} and start the agent")
    return Finding("agent", "ok", "does not run; start it with `edgeops-agent run` or your init system")


def _holder(lock: Path) -> str:
    """The process that holds the lock, by the kernel's list: trying the lock could turn away an agent that just starts."""
    try:
        inode = f":{lock.stat().st_ino}"
        held = any(line.split()[1] == "FLOCK" and line.split()[5].endswith(inode) for line in _locks())
        return (lock.read_text().strip() or "?") if held else ""
    except (OSError, IndexError):
        return ""


def _locks() -> list[str]:
    return [line for line in Path("/proc/locks").read_text().splitlines() if "->" not in line]


def manager(way: Way, least: int) -> Finding:
    """Whether the manager answers over HTTPS as somebody we trust."""
    name = f"https {urlsplit(way.url).netloc}"
    try:
        status, _ = https.fetch(way, "GET", "/api/v1/health", None, least)
    except Unreachable as error:
        return Finding(name, "fail", error.message, _next(error))
    except EdgeopsError as error:
        return Finding(name, "fail", error.message, NETWORK)
    if status != 200:
        return Finding(name, "warn", f"answers with {status}, not as a manager that is well", "tell your operator")
    return Finding(name, "ok", "the manager answers")


def broker(way: Way, least: int, pair: tuple[Path, Path]) -> Finding:
    """Whether a broker answers there as somebody we trust; whether it lets us in only the agent itself can tell."""
    parts = urlsplit(way.url)
    host, port, name = parts.hostname or "", parts.port or 8883, f"mqtt {parts.netloc}"
    try:
        context = timeless(way.cas)
        context.load_cert_chain(pair[1], pair[0])
        with socket.create_connection((host, port), PATIENCE_S) as plain, context.wrap_socket(plain, server_hostname=host) as sock:
            check_expiry(sock, least)
            return Finding(name, "ok", f"a broker answers ({sock.version()})")
    except Unreachable as error:
        return Finding(name, "fail", error.message, _next(error))
    except ssl.SSLCertVerificationError as error:
        text = f"whoever answers at {host}:{port} is not of our fleet: {error.verify_message}"
        return Finding(name, "fail", text, "do not trust this network, or ask your operator whether the CA was replaced")
    except (OSError, ValueError) as error:
        return Finding(name, "fail", f"{host}:{port}: {error}", NETWORK)


def _next(error: Unreachable) -> str:
    return "tell your operator: the server's certificate must be renewed" if error.reason == "server-expired" else NETWORK


TRIAL = """
import json, os
from edgeops_agent.shell.confine import confine
found = confine(os.getppid(), (), 1 << 28)
print(json.dumps([found.holds, found.missing]))
"""


def _confinement() -> Finding:
    """What a model could do here: tried by a process that confines itself as a worker does."""
    try:
        done = subprocess.run([sys.executable, "-P", "-c", TRIAL], capture_output=True, text=True, timeout=RUNTIME_S, check=False)
        holds, missing = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return Finding("confinement", "warn", f"it cannot be tried: {error}", "report this")
    loose = sorted(name for name, held in holds.items() if not held)
    if loose:
        text = f"a model would not be kept from: {', '.join(loose)}" + (f" ({'; '.join(missing)})" if missing else "")
        return Finding("confinement", "warn", text, "use a newer kernel, or order only models that you trust")
    return Finding("confinement", "ok", ", ".join(sorted(holds)))


def _runtime() -> Finding:
    """ONNX Runtime is loaded in a process of its own, as the agent does."""
    if importlib.util.find_spec("onnxruntime") is None:
        return Finding("runtime", "fail", "onnxruntime is not installed here", f"{sys.executable} -m pip install onnxruntime")
    script = "import onnxruntime; print(onnxruntime.__version__)"
    try:
        done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=RUNTIME_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("runtime", "fail", f"onnxruntime cannot be loaded: {error}", "free memory, or install it again")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Finding("runtime", "fail", f"onnxruntime cannot be loaded: {last}", "install it again for this Python and this CPU")
    return Finding("runtime", "ok", f"onnxruntime {done.stdout.strip()}")


def _dropped(name: str, folders: Sequence[Path], check: Callable[[Path], None]) -> Iterator[Finding]:
    """What the device's owner has left for the agent; no program of his is run for that."""
    good = 0
    for folder in folders:
        try:
            found = dropins.entries(folder)
        except Misuse as error:
            yield Finding(name, "fail", error.message, NOT_HEARD[name])
            continue
        for path in found:
            try:
                check(path)
                good += 1
            except Misuse as error:
                yield Finding(name, "fail", error.message, NOT_HEARD[name])
    yield Finding(name, "ok", f"{good} that can be used")


def _check_fact(path: Path) -> None:
    if path.suffix == ".json":
        stated.parse(dropins.read(path)[0], path)
    else:
        _check_program(path)


def _check_program(path: Path) -> None:
    if not dropins.is_program(path):
        raise Misuse("unreadable", f"{path} is no program; `chmod +x` it, or take it away")


def _unit() -> Finding:
    found = next((path for path in UNITS if path.exists()), None)
    if found is not None:
        return Finding("systemd unit", "ok", str(found))
    if shutil.which("systemctl") is None or not Path("/run/systemd/system").exists():
        return Finding("systemd unit", "ok", "no systemd here; see that something starts the agent again")
    advice = "install the one that comes with edgeops (deploy/edgeops-agent.service), or start the agent otherwise"
    return Finding("systemd unit", "warn", "none: nothing starts the agent after a reboot", advice)
