"""Landlock (Linux 5.13+): a worker reads its model and its own libraries, writes nothing, starts nothing, connects nowhere.

From Linux 6.12 on it also signals nobody and reaches no abstract socket.

Source: the kernel's Documentation/userspace-api/landlock.rst. The system calls have the same numbers on every architecture.
"""

import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_NET_BIND_CONNECT = 0b11
_SCOPE_SOCKETS_SIGNALS = 0b11
_SYSTEM = ("/usr", "/lib", "/lib64", "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system", "/dev/urandom")


def enclose(readable: Iterable[Path]) -> str:
    """Confine this process to reading `readable` and what Python itself needs; why that does not hold, else "".

    Open files, mappings and inherited sockets stay as they are. Needs no privilege, cannot be undone, holds for threads started
    later: call it before there are any.
    """
    if sys.platform != "linux":
        return f"{sys.platform} has no Landlock"
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(_CREATE, None, ctypes.c_size_t(0), _VERSION_FLAG)
    if abi < 1:
        return f"this kernel has no Landlock: {os.strerror(ctypes.get_errno())}"
    files = _RIGHTS[min(abi, 5)]
    # the kernel knows as many of these fields as its version has
    fields = (files, _NET_BIND_CONNECT, _SCOPE_SOCKETS_SIGNALS)[: 1 + (abi >= 4) + (abi >= 6)]
    ruleset = struct.pack(f"{len(fields)}Q", *fields)
    fd = libc.syscall(_CREATE, ruleset, ctypes.c_size_t(len(ruleset)), 0)
    if fd < 0:
        return f"Landlock refuses the rules: {os.strerror(ctypes.get_errno())}"
    try:
        own = [Path(entry) for entry in (sys.prefix, sys.base_prefix, *sys.path) if entry]
        for path in {*map(Path, _SYSTEM), *own, *readable}:
            _allow_reading(libc, fd, path)
        if libc.syscall(_RESTRICT, fd, 0) != 0:
            return f"Landlock does not enclose: {os.strerror(ctypes.get_errno())}"
    finally:
        os.close(fd)
    return ""


def _allow_reading(libc: ctypes.CDLL, ruleset: int, path: Path) -> None:
    with contextlib.suppress(OSError):  # what is not there need not be readable
        fd = os.open(path, getattr(os, "O_PATH", 0) | os.O_CLOEXEC)
        try:
            rights = _READ_FILE | (_READ_DIR if path.is_dir() else 0)
            libc.syscall(_ADD, ruleset, _PATH_BENEATH, struct.pack("<Qi" if sys.byteorder == "little" else ">Qi", rights, fd), 0)
        finally:
            os.close(fd)
