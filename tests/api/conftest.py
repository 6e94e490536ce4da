"""Makes tests/manager/house.py importable as `manager_house`, and offers an open manager with a clock that stands still."""

import importlib.util
import shutil
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from edgeops.api.app import make_app
from edgeops.api.serve import Serving
from edgeops.manager import tokens
from edgeops.manager.hub import Hub, open_hub
from edgeops.manager.setup import Setup

if "manager_house" not in sys.modules:
    _spec = importlib.util.spec_from_file_location("manager_house", Path(__file__).parents[1] / "manager" / "house.py")
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
def admin(hub: Hub) -> str:
    """An admin's token."""
    with hub.store.write() as tx:
        return tokens.issue(tx, "boss", "admin", hub.now())


@pytest.fixture
def client(hub: Hub, admin: str) -> TestClient:
    """The API without TLS, called as an admin."""
    return TestClient(make_app(hub), "https://test", raise_server_exceptions=False, headers={"authorization": f"Bearer {admin}"})


@pytest.fixture
def made(tmp_path: Path) -> Setup:
    """A new manager on free ports."""
    return new_manager(tmp_path / "m", int(time.time()))


@pytest.fixture
def serving(made: Setup) -> Iterator[Serving]:
    """The running manager."""
    running = Serving(made.folder)
    yield running
    running.stop()
    assert not running.alive


@pytest.fixture
def http(made: Setup, serving: Serving) -> Iterator[httpx.Client]:
    """An admin's client that trusts our CA only."""
    context = ssl.create_default_context(cafile=made.ca)
    headers = {"authorization": f"Bearer {made.admin_token}"}
    with httpx.Client(base_url=serving.url + "/api/v1", verify=context, headers=headers, trust_env=False) as client:
        yield client
