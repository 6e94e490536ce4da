"""Control groups: laid out like the kernel's in a plain folder, and for real where this machine lets us."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeops.wire.errors import Unfit
from edgeops_agent.shell.cgroup import MOST_TASKS, RUNTIME_BYTES, WEIGHT, Cell, take_over

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")


class Tree:
    """A folder that looks like /sys/fs/cgroup and /proc/self of a service in /system.slice/agent.service."""

    def __init__(self, folder: Path, controllers: str = "cpu io memory pids", top: str = "/") -> None:
        self.proc, self.mount = folder / "proc", folder / "cgroup"
        self.unit = self.mount / "system.slice" / "agent.service"
        self.unit.mkdir(parents=True)
        self.proc.mkdir()
        (self.proc / "cgroup").write_text("1:name=systemd:/x\n0::/system.slice/agent.service\n")
        (self.proc / "mountinfo").write_text(
            f"20 1 0:1 / /proc rw - proc proc rw\n30 1 0:26 {top} {self.mount} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
        )
        (self.unit / "cgroup.procs").write_text(f"{os.getpid()}\n")
        (self.unit / "cgroup.controllers").write_text(controllers)
        self.marks = {(self.unit, "user.delegate"): b"1"}

    def take(self):
        """As the agent does it."""
        return take_over(self.proc, self.attribute)

    def attribute(self, folder: Path, name: str) -> bytes:
        """An extended attribute."""
        if (folder, name) not in self.marks:
            raise OSError("no such attribute")
        return self.marks[folder, name]


def test_a_cell_of_its_own(tmp_path):
    """The agent moves into a leaf, switches controllers on, and each worker gets a group with its bounds."""
    tree = Tree(tmp_path)
    ours = tree.take()
    assert ours.root == tree.unit and ours.controllers == {"memory", "pids", "cpu"}
    assert (tree.unit / "supervisor" / "cgroup.procs").read_text() == str(os.getpid())
    cell = ours.cell("7", 100 << 20)
    assert cell.admit(123)
    bounds = {path.name: path.read_text() for path in cell.folder.iterdir()}
    assert bounds == {
        "cgroup.procs": "123", "memory.max": str(RUNTIME_BYTES + (100 << 20)), "memory.swap.max": "0", "memory.oom.group": "1",
        "pids.max": str(MOST_TASKS), "cpu.weight": str(WEIGHT),
    }  # fmt: skip


def test_only_the_controllers_there_are(tmp_path):
    """Where the kernel or the unit offers fewer controllers, the rest is used."""
    ours = Tree(tmp_path, controllers="pids hugetlb").take()
    assert ours.controllers == {"pids"}
    assert {path.name for path in ours.cell("7", 1).folder.iterdir()} == {"pids.max"}


def test_a_service_that_begins_in_a_leaf(tmp_path):
    """With DelegateSubgroup= the process is in a leaf already, and the unit above it is ours."""
    tree = Tree(tmp_path)
    (tree.unit / "supervisor").mkdir()
    (tree.proc / "cgroup").write_text("0::/system.slice/agent.service/supervisor\n")
    assert tree.take().root == tree.unit


def test_a_mount_of_a_part_of_the_tree(tmp_path):
    """In a container a part of the tree may be mounted as if it were all."""
    tree = Tree(tmp_path, top="/system.slice")
    tree.unit.parent.rename(tree.mount / "x")
    for path in (tree.mount / "x").iterdir():
        path.rename(tree.mount / path.name)
    tree.marks = {(tree.mount / "agent.service", "trusted.delegate"): b"1"}
    assert tree.take().root == tree.mount / "agent.service"


@pytest.mark.parametrize("lack", ["mark", "version 1", "no mount", "elsewhere", "locked"])
def test_what_is_not_ours_is_left_alone(tmp_path, lack):
    """Without delegation, version 2 or a mount there is a reason in words, and nothing was touched."""
    tree = Tree(tmp_path)
    if lack == "mark":
        tree.marks = {(tree.unit, "user.delegate"): b"0"}
    elif lack == "version 1":
        (tree.proc / "cgroup").write_text("3:memory:/x\n")
    elif lack == "no mount":
        (tree.proc / "mountinfo").write_text("20 1 0:1 / /proc rw - proc proc rw\n")
    elif lack == "elsewhere":
        (tree.proc / "mountinfo").write_text(f"30 1 0:26 /user.slice {tree.mount} rw - cgroup2 cgroup2 rw\n")
    else:
        (tree.unit / "cgroup.procs").unlink()
    with pytest.raises(Unfit) as error:
        tree.take()
    assert error.value.reason == "no-cgroup" and error.value.message
    assert not (tree.unit / "supervisor").exists()


def test_what_a_dead_agent_left_is_removed(tmp_path):
    """Cells of workers whose supervisor was killed go when the next one starts."""
    tree = Tree(tmp_path)
    (tree.unit / "worker-99").mkdir()
    (tree.unit / "other").mkdir()
    real = Cell.end
    try:
        Cell.end = lambda self, seconds=1.0: self.folder.rmdir()  # the kernel's files need not be deleted before a folder
        tree.take()
    finally:
        Cell.end = real
    assert not (tree.unit / "worker-99").exists() and (tree.unit / "other").exists()


def test_memory_that_was_used_up_is_known(tmp_path):
    """The kernel's own count tells a worker killed for its memory from one killed otherwise."""
    cell = Cell(tmp_path)
    assert not cell.out_of_memory
    for killed in (0, 1):
        (tmp_path / "memory.events").write_text(f"low 0\nhigh 0\nmax 3\noom 1\noom_kill {killed}\n")
        assert cell.out_of_memory == bool(killed)


REAL = """
import os, pathlib, subprocess, sys
from edgeops_agent.shell.cgroup import take_over
unit = pathlib.Path(sys.argv[1])
mark = lambda folder, name: b"1" if folder == unit else b""
ours = take_over(attribute=mark)
cell = ours.cell("1", 1 << 30)
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
assert cell.admit(child.pid)
assert str(child.pid) in (cell.folder / "cgroup.procs").read_text().split()
cell.end(5)
assert child.wait(5) == -9 and not cell.folder.exists()
assert pathlib.Path("/proc/self/cgroup").read_text().splitlines()[-1].endswith("/supervisor")
print(sorted(ours.controllers))
"""


def test_for_real(tell):
    """In the kernel's own tree: a cell takes a process in, and its end takes with it whatever is inside."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " in line]
    unit = Path(mounts[0] if mounts else "/nowhere") / f"edgeops-test-{os.getpid()}"
    try:
        unit.mkdir()
    except OSError as error:
        pytest.skip(f"this machine does not let us make a control group: {error.strerror}")
    try:
        script = f"import os; open({str(unit / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n" + REAL
        done = subprocess.run([sys.executable, "-c", script, str(unit)], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        tell(f"control groups for real, controllers: {done.stdout.strip()}")
    finally:
        until = time.monotonic() + 5
        for folder in (unit / "supervisor", unit):
            while folder.exists() and time.monotonic() < until:
                try:
                    folder.rmdir()
                except OSError:
                    time.sleep(0.01)
