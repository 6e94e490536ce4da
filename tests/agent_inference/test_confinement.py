"""The system call filter, call by call and on both processors; what a worker says of its confinement, also where there is none."""

import json
import platform
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from edgeops_agent.shell import confine, seccomp

ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x50001, 0x50000 | 38
MACHINES = {"x86_64": 0, "aarch64": 1}
NAMES = {"memory", "files", "privileges", "network", "signals", "processes", "listeners", "dies-with-agent", "cgroup"}
SCRIPT = """
import ctypes, json, os, pathlib, resource, socket, sys, threading
folder, port, headless = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if headless:
    import edgeops_agent.shell.confine as c
    c.enclose = lambda readable: "no Landlock here"
    if headless == "neither":
        c.deny_calls = lambda: "no filter here"
from edgeops_agent.shell.confine import confine
listener = socket.create_server(("127.0.0.1", 0))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
found = confine(os.getppid(), [folder], 64 << 20)
libc = ctypes.CDLL(None, use_errno=True)
def tried(act):
    ctypes.set_errno(0)
    try:
        result = act()
    except (PermissionError, BlockingIOError):
        return "denied"
    except OSError as error:
        return "denied" if error.errno in (1, 13, 27) else "did"
    return "denied" if isinstance(result, int) and result < 0 and ctypes.get_errno() in (1, 13) else "did"
def grow():
    with open(folder / "big", "r+b") as file:
        file.write(b"xx")
acts = {
    "fork": lambda: os.fork() or os._exit(0), "exec": lambda: os.execv("/bin/true", ["true"]),
    "socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), "connect": lambda: datagrams.connect(("127.0.0.1", 9)),
    "shut listener": lambda: listener.shutdown(socket.SHUT_RDWR), "listen again": lambda: listener.listen(0),
    "filter listener": lambda: listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1),
    "chmod": lambda: os.chmod(folder, 0o700), "utime": lambda: os.utime(folder / "big"), "write": grow,
    "limit parent": lambda: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (9, 9)),
    "signal parent": lambda: os.kill(os.getppid(), 0), "nice parent": lambda: os.setpriority(os.PRIO_PROCESS, os.getppid(), 5),
    "signal by file": lambda: __import__("fcntl").fcntl(listener, 8, os.getppid()),
    "outlive parent": lambda: libc.prctl(1, 0, 0, 0, 0), "shared memory": lambda: libc.shmget(0, 4096, 0o1600),
    "memfd": lambda: os.memfd_create("x"), "ptrace": lambda: libc.ptrace(16, os.getppid(), 0, 0),
}
said = {name: tried(act) for name, act in acts.items() if headless != "neither"}
thread = threading.Thread(target=lambda: said.__setitem__("thread", "did"))
thread.start()
thread.join()
os.kill(os.getpid(), 0)
print(json.dumps({"holds": found.holds, "missing": found.missing, "said": said}), flush=True)
os.abort()
"""


def confined(folder: Path, headless: str = "") -> tuple[dict, int]:
    """Run the script; what it says and its exit code."""
    (folder / "big").write_bytes(b"x")
    command = [sys.executable, "-c", SCRIPT, str(folder), "0", headless]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout, done.stderr
    return json.loads(done.stdout), done.returncode


needs_filter = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in MACHINES, reason="the filter is for Linux on x86-64 and aarch64"
)


@needs_filter
@pytest.mark.parametrize("headless", ["", "no-landlock"])
def test_everything_that_is_denied(tmp_path, headless):
    """With Landlock and without: no process, socket, signal, mode or limit of others is in reach; threads and abort still are."""
    found, code = confined(tmp_path, headless)
    said = found["said"]
    assert said.pop("thread") == "did" and code == -6
    assert [name for name, what in said.items() if what != "denied"] == []
    assert {name for name, holds in found["holds"].items() if not holds} == ({"files"} if headless else set())
    assert found["missing"] == (["no Landlock here"] if headless else [])


@needs_filter
def test_a_machine_that_has_neither(tmp_path):
    """Without Landlock and filter the worker starts all the same and says what it lacks and why."""
    found, _ = confined(tmp_path, "neither")
    assert found["missing"] == ["no Landlock here", "no filter here"]
    lacking = {name for name, holds in found["holds"].items() if not holds}
    assert lacking == {"files", "network", "signals", "processes", "listeners"}


def test_the_worker_says_how_it_is_confined(shop, hire):
    """The supervisor knows each confinement by name, and why one is missing."""
    worker = hire(shop.linear()[0])
    assert worker.check().ok
    assert worker.confinement.keys() == NAMES
    assert all(isinstance(held, bool) for held in worker.confinement.values())
    if sys.platform == "linux":
        assert worker.confinement["memory"] and worker.confinement["dies-with-agent"] and worker.confinement["privileges"]
    assert bool(worker.unconfined) == (not all(worker.confinement.values()))


def test_a_system_that_lacks_a_limit(monkeypatch):
    """A limit that is not there, or refused, is a reason in words."""
    monkeypatch.delattr(confine.resource, "RLIMIT_FSIZE")
    assert confine.limit_files() == "this system has no limit FSIZE"
    monkeypatch.setattr(confine.resource, "setrlimit", lambda kind, bounds: (_ for _ in ()).throw(ValueError("not allowed")))
    assert confine.limit_memory(1).endswith("not allowed")


def test_a_processor_nobody_knows(monkeypatch):
    """No filter where the numbers of the calls are not known."""
    monkeypatch.setattr(seccomp.platform, "machine", lambda: "riscv64")
    assert "riscv64" in seccomp.deny_calls()


def verdict(machine: str, number: int, *arguments: int, own: int = 77, arch: int | None = None) -> int:
    """What the filter answers, by a little BPF machine."""
    column, audit, _ = seccomp._MACHINES[machine]
    data = struct.pack("<iI8x6Q", number, audit if arch is None else arch, *(*arguments, *(0,) * (6 - len(arguments))))
    steps, at, value = seccomp.program(column, audit, own), 0, 0
    while True:
        code, yes, no, constant = steps[at]
        at += 1
        if code == 0x20:
            (value,) = struct.unpack_from("<I", data, constant)
        elif code == 0x06:
            return constant
        else:
            holds = {0x15: value == constant, 0x35: value >= constant, 0x45: bool(value & constant)}[code]
            at += yes if holds else no


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_on_each_processor(machine):
    """Denied calls are denied, those that depend on their arguments are so only then, all others pass, foreign ones never do."""
    column = MACHINES[machine]
    for numbers in seccomp.DENIED.values():
        if numbers[column] is not None:
            assert verdict(machine, numbers[column]) == EPERM
    assert len(seccomp.program(column, 1, 1)) < 4096 and all(max(step[1:3]) < 256 for step in seccomp.program(column, 1, 1))
    clone, kill, tgkill, prlimit = ((56, 220), (62, 129), (234, 131), (302, 261))
    thread = 0x3D0F00
    assert [verdict(machine, clone[column], flags) for flags in (17, thread, 0x10000000)] == [EPERM, ALLOW, EPERM]
    assert verdict(machine, 435) == ENOSYS
    for number in (kill, tgkill):
        assert [verdict(machine, number[column], pid, 9) for pid in (77, 78, 0, 2**32 - 1)] == [ALLOW, EPERM, EPERM, EPERM]
    assert [verdict(machine, prlimit[column], pid) for pid in (0, 77, 1)] == [ALLOW, ALLOW, EPERM]
    assert [verdict(machine, (48, 210)[column], 5, how) for how in (0, 1, 2)] == [EPERM, ALLOW, EPERM]
    options = [(6, 1), (6, 9), (1, 1), (0, 1)]
    assert [verdict(machine, (54, 208)[column], 5, *option) for option in options] == [ALLOW, EPERM, EPERM, EPERM]
    assert [verdict(machine, (157, 167)[column], what) for what in (1, 15, 38)] == [EPERM, ALLOW, ALLOW]
    assert [verdict(machine, (72, 25)[column], 5, what) for what in (1, 4, 8, 10, 1030)] == [ALLOW, ALLOW, EPERM, EPERM, ALLOW]
    assert [verdict(machine, (16, 29)[column], 5, what) for what in (0x5421, 0x8901)] == [ALLOW, EPERM]
    assert verdict(machine, (0, 63)[column]) == ALLOW  # read
    assert verdict(machine, (0, 63)[column], arch=0x40000003) == EPERM
    if machine == "x86_64":
        assert verdict(machine, 0x40000000 | 41) == EPERM


@pytest.mark.parametrize(
    ("machine", "header"),
    [("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), ("aarch64", "/usr/include/asm-generic/unistd.h")],
)
def test_the_numbers_are_those_of_the_kernel(machine, header):
    """Every number stands so in the kernel's headers, as far as those know the call."""
    if not Path(header).is_file():
        pytest.skip(f"{header} is not installed: apt install linux-libc-dev")
    known = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\s", Path(header).read_text())}
    listed = {name: numbers[MACHINES[machine]] for name, numbers in seccomp.DENIED.items()}
    wrong = {name: (number, known[name]) for name, number in listed.items() if name in known and number != known[name]}
    assert wrong == {}
    assert len(listed.keys() & known.keys()) > 60
