"""The update machine with a seeded bug in it, and whether the crash harness notices."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import edgeops_agent.core.update as product

from .cases import cases
from .harness import Violation, run
from .mutants import MUTANTS

SOURCES = {name: Path(product.__file__).with_name(f"{name}.py").read_text() for name in ("update", "ending")}
ACT_FIRST = "act, then save"
BUGS = (ACT_FIRST, *(name for name, _, _ in MUTANTS))


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


def is_caught(bug: str) -> bool:
    """Whether a run without or with one cut, or with noise, violates something."""
    act_first = bug == ACT_FIRST
    module = product if act_first else mutated(*next(one for one in MUTANTS if one[0] == bug))
    try:
        for sim in cases(module, 11, pairs=False):
            sim.act_first = act_first
            run(sim)
    except Violation:
        return True
    return False
