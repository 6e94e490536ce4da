"""The update machine under power cuts: no violation in the product, and every seeded bug is caught."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import edgeops_agent.core.update as product

from .harness import Sim, Violation, cases, explore, run, worlds
from .mutants import MUTANTS

SOURCE = Path(product.__file__).read_text()


def load(text: str, name: str) -> ModuleType:
    """The machine of a patched source, under a name of its own."""
    spec = importlib.util.spec_from_loader(f"edgeops_agent.core.{name}", loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__package__ = "edgeops_agent.core"
    sys.modules[module.__name__] = module
    exec(compile(text, name, "exec"), module.__dict__)
    return module


def test_no_cut_leaves_a_device_wrong(tell: Callable[[str], None]) -> None:
    """Every single and double cut in every world, and every noise, leaves the invariants standing."""
    runs, violations = explore(product)
    found = f"worlds {len(worlds())}, cuts {runs}, violations {len(violations)}"
    tell(f"crash harness: {found}; seeded bugs, a test each: {len(MUTANTS) + 1}")
    assert not violations, violations[:5]
    assert runs >= 5_000


@pytest.mark.parametrize(("name", "old", "new"), MUTANTS, ids=[row[0] for row in MUTANTS])
def test_seeded_bug_is_caught(name: str, old: str, new: str) -> None:
    """The harness notices this bug in a copy of the machine."""
    assert SOURCE.count(old) == 1, f"the mutant {name!r} no longer fits the source"
    module = load(SOURCE.replace(old, new), f"mutant_{abs(hash(name))}")
    caught = False
    try:
        for sim in cases(module, pairs=False):
            run(sim)
    except Violation:
        caught = True
    assert caught, f"not caught: {name}"


def test_act_then_save_is_caught() -> None:
    """A shell that acts before it saves is noticed."""

    def act_first(sim: Sim) -> Sim:
        sim.act_first = True
        return sim

    _, violations = explore(product, act_first, pairs=False)
    assert violations
