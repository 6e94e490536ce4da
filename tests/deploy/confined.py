"""Runs a program behind the system-call walls that systemd would build for a unit: python confined.py UNIT PROGRAM [ARGUMENT …]

Reads the unit's SystemCallFilter, SystemCallErrorNumber, MemoryDenyWriteExecute, RestrictAddressFamilies, RestrictNamespaces, takes
the sets of calls from systemd-analyze, and loads the filters with libseccomp, as systemd does (its seccomp-util.c). Needs no
privilege. What only mounts, users and cgroups can do (ProtectSystem, PrivateUsers …) is not done here.
"""

import ctypes
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ALLOW = 0x7FFF0000
EQUAL, GREATER, MASKED = 4, 6, 7
WRITE, EXECUTE, SHM_EXEC = 2, 4, 0o100000
NAMESPACES = (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


class Filter:
    """One seccomp filter of libseccomp."""

    def __init__(self, default: int) -> None:
        self.library = ctypes.CDLL("libseccomp.so.2")
        self.library.seccomp_init.restype = ctypes.c_void_p
        self.context = ctypes.c_void_p(self.library.seccomp_init(ctypes.c_uint32(default)))

    def rule(self, action: int, call: str, *comparisons: Comparison) -> None:
        """Add a rule; calls that this architecture has not are left out."""
        number = self.library.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:
            array = (Comparison * len(comparisons))(*comparisons)
            code = self.library.seccomp_rule_add_array(self.context, ctypes.c_uint32(action), number, len(comparisons), array)
            assert code == 0, f"{call}: {os.strerror(-code)}"

    def load(self) -> None:
        """From now on, for this process and all it starts."""
        code = self.library.seccomp_load(self.context)
        assert code == 0, os.strerror(-code)


def refuse(number: int) -> int:
    """The action that fails with this error."""
    return 0x00050000 | number


def settings(unit: str) -> dict[str, list[str]]:
    """Every key of a unit with its values in turn."""
    found: dict[str, list[str]] = {}
    for line in unit.splitlines():
        name, is_setting, value = line.partition("=")
        if is_setting and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def members(words: Iterable[str]) -> set[str]:
    """The calls that words of a SystemCallFilter= name, sets opened."""
    found: set[str] = set()
    for word in words:
        if word.startswith("@"):
            told = subprocess.run(["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, check=True).stdout
            lines = [line.strip() for line in told.splitlines()[1:]]
            found |= members(line for line in lines if line and not line.startswith("#"))
        else:
            found.add(word)
    return found


def allowed(unit: str) -> set[str]:
    """The calls a unit with an allow list lets through."""
    found: set[str] = set()
    for value in settings(unit)["SystemCallFilter"]:
        if value.startswith("~"):
            found -= members(value[1:].split())
        else:
            found |= members(value.split())
    return found | members(["@default"])


def wall_up(unit: str) -> None:
    """Load all filters of the unit; the list of calls comes last, since it may forbid loading more."""
    asked = settings(unit)
    if asked.get("RestrictNamespaces") == ["yes"]:
        wall = Filter(ALLOW)
        for call in ("unshare", "setns"):
            wall.rule(refuse(errno.EPERM), call)
        wall.rule(refuse(errno.ENOSYS), "clone3")
        for flag in NAMESPACES:
            wall.rule(refuse(errno.EPERM), "clone", Comparison(0, MASKED, flag, flag))
        wall.load()
    if "RestrictAddressFamilies" in asked:
        families = {int(getattr(socket, name)) for name in asked["RestrictAddressFamilies"][0].split()}
        wall = Filter(ALLOW)
        wall.rule(refuse(errno.EAFNOSUPPORT), "socket", Comparison(0, GREATER, 45, 0))
        for family in set(range(46)) - families:
            wall.rule(refuse(errno.EAFNOSUPPORT), "socket", Comparison(0, EQUAL, family, 0))
        wall.load()
    if asked.get("MemoryDenyWriteExecute") == ["yes"]:
        wall = Filter(ALLOW)
        wall.rule(refuse(errno.EPERM), "mmap", Comparison(2, MASKED, WRITE | EXECUTE, WRITE | EXECUTE))
        for call in ("mprotect", "pkey_mprotect"):
            wall.rule(refuse(errno.EPERM), call, Comparison(2, MASKED, EXECUTE, EXECUTE))
        wall.rule(refuse(errno.EPERM), "shmat", Comparison(2, MASKED, SHM_EXEC, SHM_EXEC))
        wall.load()
        ctypes.CDLL(None).prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0)  # newer kernels; what newer systemd does instead
    number = getattr(errno, asked["SystemCallErrorNumber"][0]) if "SystemCallErrorNumber" in asked else None
    wall = Filter(0x80000000 if number is None else refuse(number))
    for call in sorted(allowed(unit)):
        wall.rule(ALLOW, call)
    wall.load()


if __name__ == "__main__":
    wall_up(Path(sys.argv[1]).read_text())
    os.execvp(sys.argv[2], sys.argv[2:])
