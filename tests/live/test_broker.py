"""A sample of the runs of `python -m tests.live`, and bugs of the agent that only a failing broker or line brings out."""

import itertools
import signal

import pytest

from . import broker
from .broker import FAULTS, MOMENTS, Plan, one

pytestmark = pytest.mark.real

SAMPLE = (184, 41)
"""Broker killed while frames come in, line cut while the outcome is on its way."""


def test_plans_come_from_their_seed():
    """The same seed plans the same, and 56 in a row try each fault at each moment."""
    plans = [Plan.of(seed) for seed in range(1, 57)]
    assert plans == [Plan.of(seed) for seed in range(1, 57)]
    assert {(plan.fault, plan.moment) for plan in plans} == set(itertools.product(FAULTS, MOMENTS))


def test_an_update_survives(live):
    """The update ends well, the manager knows it once, nothing is installed twice, no counter goes back."""
    said = []
    assert all(broker.run(1, seed, said.append, live) == (1, {}) for seed in SAMPLE), "\n".join(said)


BUGS = (
    ("no outbox", "core/ending.py", "outbox=(*slot.outbox, outcome)[-MAX_OUTBOX:]", "outbox=slot.outbox",
     Plan(0, "mute", "trial", 0.0, 60.0), "lost"),
    ("deaf after the first connection", "shell/link.py", "for topic in sorted(self._filters):",
     "for topic in sorted(self._filters if self._joins == 1 else ()):",
     Plan(0, "cut", "trial", 0.0, 0.5), "waited"),
)  # fmt: skip


@pytest.mark.parametrize(("name", "file", "old", "new", "plan", "found"), BUGS, ids=[row[0] for row in BUGS])
def test_seeded_bug_is_caught(live, copied, monkeypatch, name, file, old, new, plan, found):
    """The run fails on a copy of the agent with the bug, for the reason expected."""
    monkeypatch.setattr(broker, "PATIENCE_S", 5.0 if found == "waited" else broker.PATIENCE_S)
    live.source = copied(file, old, new)
    live.agent.end(signal.SIGKILL)
    live.start_agent()
    try:
        assert any(text.startswith(found) for text in one(live, plan))
    finally:
        live.agent.end(signal.SIGKILL)
        live.source = None
        live.start_agent()
