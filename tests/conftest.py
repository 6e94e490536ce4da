"""Settings of all tests: property tests are deterministic and have no deadline of their own. Also: the brokers
to test on, and figures worth telling."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import settings

from edgeops.broker.mosquitto import find_mosquitto

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in background jobs of a script; what we start would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("house", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("house")


def need(kind: str) -> str:
    """The broker `kind`; fails on CI, skips elsewhere, where it is mosquitto and not installed."""
    if kind == "mosquitto" and find_mosquitto() is None:
        reason = "mosquitto is not installed: apt install mosquitto / brew install mosquitto"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return kind


@dataclass(frozen=True)
class Score:
    """What `make attacks` counts: attacks refused, honest flows accepted, changed documents refused. Call it once that was seen."""

    note: Callable[[str, object], None]

    def refused(self, attack: str, reason: str) -> None:
        """The attack with this id met this reason."""
        self.note("attack", (attack, reason))

    def accepted(self, flow: str) -> None:
        """The honest flow with this id went through."""
        self.note("honest", flow)

    def mutants(self, refused: int, tried: int) -> None:
        """So many changed documents were refused of those tried."""
        self.note("mutants", (refused, tried))


@pytest.fixture
def score(record_property: Callable[[str, object], None]) -> Score:
    """Counts for `make attacks`."""
    return Score(record_property)


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Says a figure that a test came to; all of them stand at the end of the run, whichever process ran the test."""
    return lambda text: record_property("figure", text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The figures, one line each."""
    reports = [report for found in terminalreporter.stats.values() for report in found if isinstance(report, pytest.TestReport)]
    figures = [value for report in reports if report.when == "call" for name, value in report.user_properties if name == "figure"]
    if figures:
        terminalreporter.section("figures")
        for figure in sorted(map(str, figures)):
            terminalreporter.write_line(figure)


@pytest.fixture(params=["mosquitto", "built-in"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which broker a test starts by itself: each in turn."""
    return need(request.param)


@pytest.fixture(scope="session", params=["mosquitto", "built-in"])
def each_kind(request: pytest.FixtureRequest) -> str:
    """The same for brokers that live as long as the session."""
    return need(request.param)
