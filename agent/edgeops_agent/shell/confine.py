"""What a worker process takes away from itself: memory, core dumps, privileges, and life after the supervisor."""

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

OWN_BYTES = 96 << 20  # stacks of the server threads, allocator arenas, request bodies
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


def die_with_parent(parent: int) -> None:
    """On Linux: be killed when the supervisor is gone, and gain no privileges. Elsewhere the control channel alone tells."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    with contextlib.suppress(OSError):  # when memory runs out the worker goes first, not the supervisor
        Path("/proc/self/oom_score_adj").write_text("500")
    if os.getppid() != parent:
        os._exit(0)


def limit_memory(extra_bytes: int) -> bool:
    """Bound the address space to what is mapped now + the server's needs + `extra_bytes`; False where no such bound exists."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        bound = pages * resource.getpagesize() + OWN_BYTES + extra_bytes
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        if hard != resource.RLIM_INFINITY:
            bound = min(bound, hard)
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    except (OSError, ValueError):
        return False
    return True
