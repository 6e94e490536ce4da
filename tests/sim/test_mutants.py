"""The storm notices a broken straw: every seeded bug is caught within a few seeds."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from edgeops_agent.sim import kept, ports, presence, straw

from .mutants import MUTANTS
from .test_storm import travel
from .world import STORM, Founded, World

# In the order in which they import each other: what stands further down is read again after a change further up.
MODULES: dict[str, ModuleType] = {"kept": kept, "ports": ports, "presence": presence, "straw": straw}
SEEDS = range(12)


def read_again(name: str = "", old: str = "", new: str = "") -> None:
    """Run the modules' sources once more in place, one of them changed."""
    for one, module in MODULES.items():
        path = Path(module.__file__ or "")
        text = path.read_text(encoding="utf-8")
        if one == name:
            assert text.count(old) == 1, "the mutant no longer fits the source"
            text = text.replace(old, new)
        exec(compile(text, str(path), "exec"), module.__dict__)


@pytest.fixture
def whole() -> Iterator[None]:
    """Puts the modules right again."""
    yield
    read_again()


@pytest.mark.parametrize(("name", "module", "old", "new"), MUTANTS, ids=[row[0] for row in MUTANTS])
def test_seeded_bug_is_caught(
    small: Founded, worlds: Callable[..., World], whole: None, name: str, module: str, old: str, new: str
) -> None:
    """Some seed's laws break, or its rollout does not come to its end."""
    read_again(module, old, new)
    for seed in SEEDS:
        try:
            travel(worlds(small, seed, STORM))
        except AssertionError:
            return
    pytest.fail(f"not caught: {name}")
