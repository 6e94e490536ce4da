"""The whole thing, alive: a real manager with mosquitto, a real agent, real workers, while the line between them, the broker or the
agent fails, and while one model takes over from another under load. `python -m tests.live` runs all of it, the tests a sample.

It knows how to hurt processes from outside, with signals and a proxy: there is no switch for that in the product. It does not know
the insides of manager or agent; it reads what they leave (record, log, database) and asks what they answer.
"""

import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import edgeops_agent

from ..conftest import need
from .scene import FAR, Scene, scene


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Manager, mosquitto and agent, which all tests of a file hurt in turn."""
    need("mosquitto")
    try:
        socket.create_server((FAR, 0)).close()
    except OSError:
        pytest.skip(f"this system has no second loopback address {FAR} to put a line in between")
    with scene(tmp_path_factory.mktemp("live")) as made:
        yield made


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str, str, str], Path]:
    """Make a copy of the agent's package in which `old`, which stands once in `file`, is `new`; the folder it lies in."""

    def copy(file: str, old: str, new: str) -> Path:
        source, to = Path(edgeops_agent.__file__).parent, tmp_path / "source"
        package = Path(shutil.copytree(source, to / "edgeops_agent", ignore=shutil.ignore_patterns("__pycache__")))
        text = (package / file).read_text("utf-8")
        assert text.count(old) == 1, f"the bug no longer fits {file}: {old}"
        (package / file).write_text(text.replace(old, new), "utf-8")
        return to

    return copy
