"""A model that does not stay up is started again, less and less often, and quickly again after a calm."""

import pytest

from edgeops_agent.core.slot import Slot
from edgeops_agent.shell.revival import CALM_S, MOST_S, Revival


def test_waits_grow_to_a_bound_and_fall_after_a_calm() -> None:
    """5, 10, 20, 40, 60, 60 seconds; every plan comes due once; after ten calm minutes it is 5 again."""
    clock = [1000.0]
    revival = Revival(lambda: clock[0])
    waits = []
    for _ in range(6):
        waits.append(revival.plan("main"))
        assert revival.due({}) == []
        clock[0] += waits[-1]
        assert (revival.due({}), revival.due({})) == (["main"], [])
    assert waits == [5, 10, 20, 40, MOST_S, MOST_S]
    clock[0] += CALM_S
    assert revival.plan("main") == 5
    assert revival.plan("other") == 5


@pytest.mark.parametrize("phase", ["trial", "proven"])
def test_a_candidate_is_not_cut_short(phase: str) -> None:
    """While one loads, takes the calls on trial or waits for its commit the plan is put off, not given up."""
    clock = [1000.0]
    revival = Revival(lambda: clock[0])
    clock[0] += revival.plan("main")
    assert revival.due({"main": Slot(phase)}) == []
    assert revival.due({"main": Slot("rollback")}) == ["main"]
