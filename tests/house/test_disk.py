"""One door to the disk: in the agent's shell only `files.py` opens, writes, syncs, moves or deletes: nothing goes unproven."""

import ast
from pathlib import Path

import pytest

from .houses import ROOT, files

SHELL = "agent/edgeops_agent/shell/"
ALLOWED = {
    "files.py": "the door",
    "cgroup.py": "control groups", "confine.py": "/proc", "gauges.py": "/sys and /proc", "surroundings.py": "/proc, for the doctor",
    "facts.py": "/proc", "dropins.py": "what the device's owner has put into facts.d and health.d",
    "listen.py": "the socket file of the local endpoint", "live.py": "a socket file", "reading.py": "a pipe that wakes a thread",
    "sandbox.py": "folders as Landlock wants them named",
    "logbook.py": "the log, which nothing relies on and nothing waits for",
    "model.py": "read in the caller's process", "probe.py": "read in the worker", "recording.py": "read in the worker",
}  # fmt: skip
"""Who goes to something that is not the agent's state, or only reads it in another process."""
OF_OS = {
    "open", "fdopen", "replace", "rename", "link", "symlink", "unlink", "remove", "rmdir", "mkdir", "makedirs", "fsync",
    "fdatasync", "sync", "write", "pwrite", "truncate", "ftruncate", "chmod", "posix_fallocate",
}  # fmt: skip
OF_PATHS = {
    "open", "write_bytes", "write_text", "read_bytes", "read_text", "unlink", "mkdir", "rmdir", "touch", "rename", "chmod",
    "symlink_to", "hardlink_to",
}  # fmt: skip
"""And `replace` of one argument: that of a text has two."""


def doors(root: Path) -> dict[str, list[str]]:
    """Calls that go to the disk, by file of the shell."""
    found = {}
    for path, tree, _ in files(root):
        if path.startswith(SHELL):
            calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
            found[path.removeprefix(SHELL)] = [f"{call.lineno} {ast.unparse(call.func)}" for call in calls if _is_disk(call)]
    return found


def side_doors(root: Path) -> list[str]:
    """Those of files that may have none."""
    return [f"{name}:{call}" for name, calls in doors(root).items() if name not in ALLOWED for call in calls]


def _is_disk(call: ast.Call) -> bool:
    match call.func:
        case ast.Name("open"):
            return True
        case ast.Attribute(ast.Name("os"), name):
            return name in OF_OS
        case ast.Attribute(_, "replace"):
            return len(call.args) == 1 and not call.keywords
        case ast.Attribute(ast.Name("self"), _):
            return False
        case ast.Attribute(_, name):
            return name in OF_PATHS
    return False


def test_the_shell_has_one_door_to_the_disk() -> None:
    """No file but those named, each with its reason, goes to the disk by itself; none of those is named in vain."""
    assert not side_doors(ROOT)
    assert all(doors(ROOT)[name] for name in ALLOWED)


@pytest.mark.parametrize(
    "line", ["open('x', 'w')", "os.replace(a, b)", "path.write_bytes(b'')", "folder.joinpath('x').unlink()", "a.replace(b)"]
)
def test_a_side_door_is_noticed(line: str, tmp_path: Path) -> None:
    """Each way around is named."""
    target = tmp_path / SHELL / "spool.py"
    target.parent.mkdir(parents=True)
    target.write_text(f"def around(path, folder, a, b):\n    {line}\n")
    assert len(side_doors(tmp_path)) == 1
