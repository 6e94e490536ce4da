"""A manager whose straws all run release 1 already, made once; every world begins as a copy of it."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .world import Founded, World, found, settle


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Founded:
    """Six straws."""
    return settle(found(tmp_path_factory.mktemp("small") / "m", 6))


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Founded:
    """Fifty straws."""
    return settle(found(tmp_path_factory.mktemp("large") / "m", 50))


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes worlds in folders of their own and closes them."""
    made: list[World] = []

    def make(*arguments: object, **named: object) -> World:
        made.append(World(arguments[0], tmp_path / f"w{len(made)}", *arguments[1:], **named))  # type: ignore[arg-type]
        return made[-1]

    # Thousands of refused messages are what these tests are about; nobody reads them.
    logging.disable(logging.WARNING)
    yield make
    logging.disable(logging.NOTSET)
    for world in made:
        world.close()
