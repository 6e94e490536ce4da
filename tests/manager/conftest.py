"""Makes tests/manager/house.py importable as `manager_house`, and offers an open manager with a clock that stands still."""

import importlib.util
import itertools
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeops.manager.hub import Hub, open_hub

if "manager_house" not in sys.modules:
    _spec = importlib.util.spec_from_file_location("manager_house", Path(__file__).with_name("house.py"))
    assert _spec and _spec.loader
    sys.modules["manager_house"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["manager_house"])

from manager_house import Clock, new_manager


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until it is moved."""
    return Clock()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new manager's folder, to be copied: making keys, CA and database takes a third of a second."""
    return new_manager(tmp_path_factory.mktemp("template") / "m").folder


@pytest.fixture
def hub(template: Path, tmp_path: Path, clock: Clock) -> Iterator[Hub]:
    """An open manager without broker and API."""
    shutil.copytree(template, tmp_path / "m")
    opened = open_hub(tmp_path / "m", clock)
    yield opened
    opened.close()


@pytest.fixture
def template_hub(template: Path, tmp_path: Path, clock: Clock) -> Callable[[], Hub]:
    """Open another fresh manager each time."""
    numbers = itertools.count()

    def another() -> Hub:
        folder = tmp_path / f"copy-{next(numbers)}"
        shutil.copytree(template, folder)
        return open_hub(folder, clock)

    return another
