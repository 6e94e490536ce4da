"""One real manager for all tests here; agents are made and ended by each test."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .site import Agent, Site, until

NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A manager that is up; it makes its releases when they are first ordered."""
    made = Site(tmp_path_factory.mktemp("site"))
    made.init()
    made.up()
    yield made
    made.down()


@pytest.fixture
def device(site: Site, tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    """Make agents: enrolled and running ones by default; all are ended, and their workers must end with them."""
    made: list[Agent] = []

    def make(*, enroll: bool = True, start: bool = True, holds: str = "") -> Agent:
        name = f"pi-{next(NUMBERS):03d}"
        agent = Agent(site, name, tmp_path / name)
        made.append(agent)
        if enroll:
            agent.enroll()
        if enroll and start:
            agent.start()
        if holds:
            site.order(name, holds)
            agent.ended("committed-unproven", holds)
            until((agent.folder / "slots" / "main.json").exists, "programs to be shown the model")
        return agent

    yield make
    for agent in made:
        if agent.process is not None and agent.process.poll() is None:
            agent.process.kill()
            agent.process.wait()
