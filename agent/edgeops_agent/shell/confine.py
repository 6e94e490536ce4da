"""What a worker process takes away from itself: memory, files, sockets, signals, other processes, and life after the supervisor.

Every confinement that a machine does not have is left out and said; which ones hold is then tried, not believed.
"""

import contextlib
import ctypes
import errno
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .sandbox import enclose
from .seccomp import CLONE, deny_calls

OWN_BYTES = 96 << 20  # stacks of the server threads, allocator arenas, request bodies
MOST_FILES = 512
MOST_PROCESSES = 2048  # of this user; only where nothing better keeps a worker from starting any
_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITIES_V3 = 0x20080522
_KEPT = 0b110  # to read what the supervisor reads (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH); root has 40 more
_SIGHAND = 0x800  # alone it makes no sense to the kernel: EINVAL, unless clone is denied


@dataclass(frozen=True, slots=True)
class Confinement:
    """Which confinements hold for a worker, by name, and why those that do not are missing (for people)."""

    holds: dict[str, bool] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


def confine(parent: int, readable: Iterable[Path], memory_bytes: int) -> Confinement:
    """Confine this process for good: it may read `readable` and take so much memory beyond what it has now."""
    die_with_parent(parent)
    limits = (limit_memory(memory_bytes), limit_files())
    found = (*limits, enclose(readable), deny_calls())
    if found[-1]:
        _lower("NPROC", MOST_PROCESSES)
    return Confinement({name: _holds(tried) for name, tried in _TRIALS.items()}, tuple(why for why in found if why))


def die_with_parent(parent: int) -> None:
    """On Linux: be killed when the supervisor is gone, have no privileges. Elsewhere the control channel alone tells."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    kept = _KEPT if os.geteuid() == 0 else 0
    libc.capset(struct.pack("Ii", _CAPABILITIES_V3, 0), struct.pack("6I", kept, kept, 0, 0, 0, 0))
    with contextlib.suppress(OSError):  # when memory runs out the worker goes first, not the supervisor
        Path("/proc/self/oom_score_adj").write_text("500")
    if os.getppid() != parent:
        os._exit(0)


def limit_memory(extra_bytes: int) -> str:
    """Bound the address space to what is mapped now + the server's needs + `extra_bytes`; why that does not hold, else ""."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        return _lower("AS", pages * resource.getpagesize() + OWN_BYTES + extra_bytes)
    except (OSError, ValueError) as error:
        return f"memory cannot be bounded: {error}"


def limit_files() -> str:
    """No file grows by a worker's hand, and it holds few open ones; why that does not hold, else ""."""
    return _lower("FSIZE", 0) or _lower("NOFILE", MOST_FILES)


def _lower(name: str, bound: int) -> str:
    kind = getattr(resource, f"RLIMIT_{name}", None)
    if kind is None:
        return f"this system has no limit {name}"
    try:
        _, hard = resource.getrlimit(kind)
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (bound, bound))
    except (OSError, ValueError) as error:
        return f"limit {name}: {error}"
    return ""


def _holds(tried: Callable[[], bool]) -> bool:
    try:
        return tried()
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EPERM)


def _memory() -> bool:
    return resource.getrlimit(resource.RLIMIT_AS)[1] != resource.RLIM_INFINITY


def _reads() -> bool:
    os.close(os.open("/", os.O_RDONLY))
    return False


def _powers() -> bool:
    status = Path("/proc/self/status").read_text()
    found = dict(line.split(":", 1) for line in status.splitlines())
    return int(found["CapEff"], 16) | _KEPT == _KEPT and int(found["NoNewPrivs"]) == 1


def _connects() -> bool:
    with socket.socket() as sock:
        sock.connect(("127.0.0.1", 1))
    return False


def _signals() -> bool:
    os.kill(os.getppid(), 0)
    return False


def _calls(name: str, *arguments: int) -> bool:
    """Whether a call that would make no sense is denied before the kernel finds that out."""
    libc = ctypes.CDLL(None, use_errno=True)
    function = getattr(libc, name)
    return function(*arguments) < 0 and ctypes.get_errno() == errno.EPERM


def _dies() -> bool:
    found = ctypes.c_int()
    return ctypes.CDLL(None).prctl(_PR_GET_PDEATHSIG, ctypes.byref(found), 0, 0, 0) == 0 and found.value == signal.SIGKILL


_TRIALS: dict[str, Callable[[], bool]] = {
    "memory": _memory, "files": _reads, "privileges": _powers, "network": _connects, "signals": _signals,
    "processes": lambda: _calls("syscall", CLONE, _SIGHAND, 0, 0, 0, 0),
    "listeners": lambda: _calls("listen", -1, 0), "dies-with-agent": _dies,
}  # fmt: skip
