"""Control groups, version 2: a group of its own for every worker, where the agent's part of the tree was delegated to it.

That is so in a systemd unit with `Delegate=yes`. Elsewhere nothing is touched: the tree belongs to whoever runs the machine.
Source: the kernel's Documentation/admin-guide/cgroup-v2.rst and systemd's CGROUP_DELEGATION.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeops.wire.errors import Unfit

RUNTIME_BYTES = 192 << 20  # interpreter, ONNX Runtime and the server, which are not the model's
MOST_TASKS = 128
WEIGHT = 50  # of 100 that the supervisor has: it must hear the manager while a model computes
WANTED = ("memory", "pids", "cpu")
_CELL = "worker-"


@dataclass(frozen=True, slots=True)
class Cell:
    """The group of one worker; what is started in it cannot leave it."""

    folder: Path

    def admit(self, pid: int) -> bool:
        """Put a process into it; False when the kernel does not let us."""
        return _write(self.folder / "cgroup.procs", str(pid))

    @property
    def out_of_memory(self) -> bool:
        """Whether the kernel has killed in it because its memory was used up."""
        with contextlib.suppress(OSError, ValueError):
            events = dict(line.split() for line in (self.folder / "memory.events").read_text().splitlines())
            return int(events.get("oom_kill", 0)) > 0
        return False

    def end(self, seconds: float = 1.0) -> None:
        """Kill whatever is left in it and remove it. One that does not go is removed by the next agent."""
        _write(self.folder / "cgroup.kill", "1")
        until = time.monotonic() + seconds
        while self.folder.exists() and time.monotonic() < until:
            try:
                self.folder.rmdir()
            except OSError:  # the killed ones are still leaving
                time.sleep(0.01)


@dataclass(frozen=True, slots=True)
class Subtree:
    """The part of the tree that is ours, and the controllers we may use below it."""

    root: Path
    controllers: frozenset[str]

    def cell(self, name: str, memory_bytes: int) -> Cell:
        """A group for a worker that may take so much memory beyond the runtime's; raises Unfit("no-cgroup")."""
        folder = self.root / f"{_CELL}{name}"
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise Unfit("no-cgroup", f"{folder} cannot be made: {error.strerror}") from None
        bounds = {
            "memory": (("memory.max", RUNTIME_BYTES + memory_bytes), ("memory.swap.max", 0), ("memory.oom.group", 1)),
            "pids": (("pids.max", MOST_TASKS),), "cpu": (("cpu.weight", WEIGHT),),
        }  # fmt: skip
        for controller in self.controllers:
            for file, value in bounds[controller]:
                _write(folder / file, str(value))
        return Cell(folder)


def take_over(proc: Path = Path("/proc/self"), attribute: Callable[[Path, str], bytes] | None = None) -> Subtree:
    """The delegated subtree this process runs in, made ready: itself in a leaf, controllers on, cells of a dead agent gone.

    Raises Unfit("no-cgroup") saying why there is none.
    """
    root = _delegated(_own(proc), attribute or _attribute)
    leaf = root / "supervisor"
    try:
        for left in root.glob(f"{_CELL}*"):
            Cell(left).end()
        leaf.mkdir(exist_ok=True)
        for pid in (root / "cgroup.procs").read_text().split():  # a group with processes of its own cannot bound its children
            _write(leaf / "cgroup.procs", pid)
        offered = (root / "cgroup.controllers").read_text().split()
    except OSError as error:
        raise Unfit("no-cgroup", f"{root} cannot be used: {error.strerror}") from None
    switched = {name for name in WANTED if name in offered and _write(root / "cgroup.subtree_control", f"+{name}")}
    return Subtree(root, frozenset(switched))


def _own(proc: Path) -> Path:
    """The folder of this process's group."""
    try:
        path = next(line[3:] for line in (proc / "cgroup").read_text().splitlines() if line.startswith("0::"))
        mounts = [line.split() for line in (proc / "mountinfo").read_text().splitlines() if " - cgroup2 " in line]
    except (OSError, StopIteration):
        raise Unfit("no-cgroup", "this system has no control groups of version 2") from None
    for mount in mounts:
        top, place = mount[3], Path(mount[4])
        if path == top or path.startswith(top.rstrip("/") + "/"):
            return place / path[len(top.rstrip("/")) :].lstrip("/")
    raise Unfit("no-cgroup", "control groups of version 2 are not mounted")


def _delegated(own: Path, attribute: Callable[[Path, str], bytes]) -> Path:
    """`own` or, where the service was started in a leaf of its own already, its parent: whichever systemd has marked as ours."""
    for folder in (own, own.parent):
        for name in ("user.delegate", "trusted.delegate"):
            with contextlib.suppress(OSError):
                if attribute(folder, name) == b"1" and os.access(folder / "cgroup.procs", os.W_OK):
                    return folder
    raise Unfit("no-cgroup", "no part of the control groups is delegated to the agent; run it in a systemd unit with Delegate=yes")


def _attribute(folder: Path, name: str) -> bytes:
    if sys.platform != "linux":
        raise OSError("only Linux has control groups")
    return os.getxattr(folder, name)


def _write(file: Path, text: str) -> bool:
    try:
        file.write_text(text)
    except OSError:
        return False
    return True
