"""The drawing of the update machine in the docs is what the machine does."""

from pathlib import Path

from edgeops_agent.core.slot import PHASES, WORKING

from .diagram import arrows, page

DRAWN = Path(__file__).parents[2] / "docs" / "update-machine.md"


def test_the_drawing_is_not_stale() -> None:
    """docs/update-machine.md says what the machine says; `python -m tests.crash.diagram > docs/update-machine.md` draws it anew."""
    assert DRAWN.read_text() == page()


def test_every_phase_is_reached_and_left() -> None:
    """Nothing is drawn that cannot happen, and from every phase an arrow leads on, one of them at its deadline."""
    assert {source for source, _, _ in arrows()} == {target for _, _, target in arrows()} == set(PHASES)
    at_deadline = {source for source, words, _ in arrows() if words.startswith("deadline")}
    assert at_deadline == set(WORKING)
