"""`edgeops time`: what devices are told, and an operator's word for a clock that has jumped."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeops.cli.local import clock

FAST = ("--https-port", "0", "--mqtt-port", "0", "--address", "127.0.0.1")
YEAR = 365 * 86_400


@pytest.fixture
def home(tmp_path: Path, config: Path, edgeops) -> Path:
    """A fresh manager's folder."""
    assert edgeops("init", str(tmp_path / "m"), "--fleet", "berlin", *FAST).code == 0
    return tmp_path / "m"


def test_a_jump_is_shown_and_accepted(home: Path, edgeops, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fine at first; a year later exit 1 and why; not confirmed nothing changes; accepted it is fine again; back it is not."""
    show: Callable[..., object] = lambda *words: edgeops("time", *words, str(home))  # noqa: E731
    assert (show("show").code, "devices are told the time" in show("show").out) == (0, True)
    later = int(time.time()) + YEAR
    monkeypatch.setattr(clock, "time", SimpleNamespace(time=lambda: later))
    assert (show("show").code, "edgeops time accept" in show("show").out) == (1, True)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert (show("accept").code, "[not-confirmed]" in show("accept").err) == (2, True)
    assert show("show", "--json").json["doubt"]
    assert show("accept", "--yes", "--json").json["signed"] == later
    assert show("show", "--json").json == {"now": later, "signed": later, "epoch": 0, "doubt": ""}
    monkeypatch.setattr(clock, "time", SimpleNamespace(time=lambda: later - YEAR))
    assert (show("show").code, "behind" in show("show").out) == (1, True)
