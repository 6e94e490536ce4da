"""What a worker says it has counted: a model may have taken it over, and no number of its ends the agent."""

from typing import Any

import pytest

from edgeops.wire.canonical import LIMIT
from edgeops.wire.errors import Unfit
from edgeops_agent.shell.supervisor import Supervisor
from edgeops_agent.shell.workers import Worker

from .test_stumble import agent as agent


@pytest.mark.parametrize("said", [{"calls": 2**40 + 1}, {"errors": 2**53}, {"errors_by_reason": {"bad": 10**30}}])
def test_a_worker_that_counts_too_much_is_ended(monkeypatch: pytest.MonkeyPatch, said: dict[str, Any]) -> None:
    """No worker has answered so many calls: it speaks nonsense, and whoever asked learns that by name."""
    ended: list[str] = []
    monkeypatch.setattr(Worker, "_ask", lambda *_: {"counters": said, "window": None})
    monkeypatch.setattr(Worker, "_kill", lambda _, reason: ended.append(reason))
    with pytest.raises(Unfit, match="bad-reply"):
        Worker().collect()
    assert ended == ["bad-reply"]


def test_what_a_worker_may_count_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest count is one still; what is no number is left out, and the worker lives."""
    monkeypatch.setattr(Worker, "_ask", lambda *_: {"counters": {"calls": 2**40, "x": "y", "z": -1, "by": {"a": 1, "b": 0.5}}})
    assert Worker().collect()["counters"] == {"calls": 2**40, "by": {"a": 1}}


def test_sums_stay_within_what_a_message_holds(agent: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is counted in all, the report can be said."""
    said: list[str] = []
    monkeypatch.setattr(agent.link, "publish", lambda topic, *_: said.append(topic) or True, raising=False)
    for _ in range(2):
        agent.voice.telemetry(None, 2**53, 2**53)
    agent.voice.report()
    assert len(said) == 1 and agent.voice.lively == {"calls": LIMIT, "errors": LIMIT}
