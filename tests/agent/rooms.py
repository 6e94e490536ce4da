"""The agent's modules, as they are or with one line of a copy changed, so that the same check can be asked of both."""

import importlib
import itertools
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import edgeops_agent

SOURCE = Path(edgeops_agent.__file__).parent
COPIES = itertools.count(1)
PATIENCE_S = 10.0


@dataclass(frozen=True)
class Rooms:
    """`rooms.shell("hooks")` is that module of this copy of the agent."""

    package: str = "edgeops_agent"

    def shell(self, name: str) -> Any:
        """A module of the shell."""
        return importlib.import_module(f"{self.package}.shell.{name}")

    def core(self, name: str) -> Any:
        """A module of the core."""
        return importlib.import_module(f"{self.package}.core.{name}")


@contextmanager
def changed(folder: Path, file: str, old: str, new: str) -> Iterator[Rooms]:
    """A copy of the agent in which `old`, which stands once in `file`, is `new`."""
    package = f"edgeops_agent_copy_{next(COPIES)}"
    shutil.copytree(SOURCE, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    target = folder / package / file
    text = target.read_text("utf-8")
    assert text.count(old) == 1, f"the bug no longer fits {file}: {old}"
    target.write_text(text.replace(old, new), "utf-8")
    sys.path.insert(0, str(folder))
    try:
        yield Rooms(package)
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.split(".")[0] == package]:
            del sys.modules[name]


def until(ready: Callable[[], Any], what: str) -> Any:
    """The first true answer of `ready`; fails after PATIENCE_S."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := ready()):
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:g} s in vain for: {what}"
        time.sleep(0.01)
    return found


def program(folder: Path, name: str, lines: str) -> Path:
    """A shell script of ours in `folder`."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)
    return path


def gone(pid: int) -> bool:
    """Whether a process has ended, though its parent may not have noticed."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
