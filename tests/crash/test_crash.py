"""The update machine under power cuts: no violation in the product, and every seeded bug is caught."""

from collections.abc import Callable

import pytest

import edgeops_agent.core.update as product
from edgeops_agent.core.slot import Offered, Restarted, Slot, Target

from .cases import explore
from .mutated import BUGS, is_caught
from .worlds import NEW, OLD, worlds


def test_no_cut_leaves_a_device_wrong(tell: Callable[[str], None]) -> None:
    """Every single cut, many double ones and every noise in every world leave the invariants standing (all: `make crash`)."""
    runs, violations = explore(product, every=11)
    found = f"worlds {len(worlds())}, cuts {runs}, violations {len(violations)}"
    tell(f"crash harness: {found}; seeded bugs, a test each: {len(BUGS)}")
    assert not violations, violations[:5]
    assert runs >= 20_000


def test_restarts_that_nobody_caused_are_bounded_too() -> None:
    """A device that restarts a hundred times while it waits or fetches gives the order up."""
    slot, _ = product.step(Slot(current=OLD), Offered(Target(2, "run", "r1", NEW), 0))
    for _ in range(product.MAX_RESTARTS):
        slot, _ = product.step(slot, Restarted(1))
        assert slot.phase == "fetch"
    slot, _ = product.step(slot, Restarted(1))
    assert (slot.phase, slot.last and slot.last.verdict, slot.last and slot.last.reason) == ("idle", "failed", "crash-loop")


@pytest.mark.parametrize("bug", BUGS)
def test_seeded_bug_is_caught(bug: str) -> None:
    """The harness notices this bug in a copy of the machine, and a shell that acts before it saves."""
    assert is_caught(bug)
