"""The update machine under power cuts: no violation in the product, and every seeded bug is caught."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import edgeops_agent.core.update as product
from edgeops_agent.core.slot import Offered, Restarted, Slot, Target

from .harness import Sim, Violation, cases, explore, run, worlds
from .mutants import MUTANTS
from .worlds import NEW, OLD

SOURCES = {name: Path(product.__file__).with_name(f"{name}.py").read_text() for name in ("update", "ending")}


def load(text: str, name: str) -> ModuleType:
    """A module of a patched source, under a name of its own."""
    spec = importlib.util.spec_from_loader(f"edgeops_agent.core.{name}", loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__package__ = "edgeops_agent.core"
    sys.modules[module.__name__] = module
    exec(compile(text, name, "exec"), module.__dict__)
    return module


def mutated(name: str, old: str, new: str) -> ModuleType:
    """The machine with one line of it, or of what it ends orders with, replaced."""
    found = [source for source, text in SOURCES.items() if old in text]
    assert len(found) == 1 and SOURCES[found[0]].count(old) == 1, f"the mutant {name!r} no longer fits the source"
    mark = abs(hash(name))
    texts = {**SOURCES, found[0]: SOURCES[found[0]].replace(old, new)}
    load(texts["ending"], f"ending_{mark}")
    return load(texts["update"].replace("from .ending import", f"from .ending_{mark} import"), f"update_{mark}")


def test_no_cut_leaves_a_device_wrong(tell: Callable[[str], None]) -> None:
    """Every single cut, many double ones and every noise in every world leave the invariants standing (all: `make crash`)."""
    runs, violations = explore(product, every=11)
    found = f"worlds {len(worlds())}, cuts {runs}, violations {len(violations)}"
    tell(f"crash harness: {found}; seeded bugs, a test each: {len(MUTANTS) + 1}")
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


@pytest.mark.parametrize(("name", "old", "new"), MUTANTS, ids=[row[0] for row in MUTANTS])
def test_seeded_bug_is_caught(name: str, old: str, new: str) -> None:
    """The harness notices this bug in a copy of the machine."""
    module = mutated(name, old, new)
    caught = False
    try:
        for sim in cases(module, 11, pairs=False):
            run(sim)
    except Violation:
        caught = True
    assert caught, f"not caught: {name}"


def test_act_then_save_is_caught() -> None:
    """A shell that acts before it saves is noticed."""

    def act_first(sim: Sim) -> Sim:
        sim.act_first = True
        return sim

    _, violations = explore(product, act_first, every=50)
    assert violations
