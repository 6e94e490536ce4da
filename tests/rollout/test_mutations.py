"""Seeded bugs: each patch of the sources is caught by the laws, and the unpatched sources pass the same runs."""

import importlib.util
import sys
import types
from pathlib import Path

import pytest

import edgeops.rollout as room

_spec = importlib.util.spec_from_file_location("rollout_invariants", Path(__file__).with_name("invariants.py"))
inv = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(inv)

HOME = Path(room.__file__).parent
SEEDS = range(300)

MUTANTS = {
    "dwell ignored": ("gates", "r.now >= wave.met_at + r.plan.policy.dwell_s", "True"),
    "denominator is the whole wave": ("gates", "r.plan.success_ppm * r.wave.judged", "r.plan.success_ppm * r.wave.size"),
    "fraction ignored": ("gates", "return is_enough(r) and holds_fraction(r)", "return is_enough(r)"),
    "a missed wave goes on": ("gates", 'return "halt", f"wave-missed', 'return "pass", f"wave-missed'),
    "timeout ignored": ("gates", "late = r.now >= (wave.deadline or 0)", "late = False"),
    "min_devices ignored": ("gates", "return r.wave.judged >= needed(r)", "return True"),
    "hard stop off by one": ("gates", "failures > policy.max_failures", "failures > policy.max_failures + 1"),
    "silent devices are no failures": ("tally", '"silent": "silent"', '"silent": "unfit"'),
    "outcome counted twice": ("tally", "getattr(wave, name) + 1", "getattr(wave, name) + 2"),
    "hard stop never asked": ("engine", 'if r.status in ("running", "paused") and', "if False and"),
    "hard stop sleeps while paused": ("engine", 'if r.status in ("running", "paused") and', 'if r.status == "running" and'),
    "resume forgets nothing": ("engine", "excused=w.failures, ", ""),
    "resume after a pause excuses": ("engine", "if halted else _shift_timers(r)", ""),
    "halt without stop": ("engine", "return r, (Stop(why), *back, Audit(text)", "return r, (*back, Audit(text)"),
    "opens while halted": (
        "engine",
        "    return r, (Stop(why), *back, Audit",
        "    return r, (Stop(why), OpenWave(r.current, r.wave.up_to), *back, Audit",
    ),
    "skips a wave": ("engine", "current=r.current + 1, waiting", "current=min(r.current + 2, len(r.waves) - 1), waiting"),
    "recalls the newest wave's predecessor": (
        "engine",
        "Recall(r.plan.previous, r.current)",
        "Recall(r.plan.previous, r.current - 1)",
    ),
    "no wake": ("engine", "t is not None and t > r.now", "False"),
    "clock runs back": ("engine", "now=max(rollout.now, event.now)", "now=event.now - 1"),
    "dwell not restarted": ("engine", "if is_met(r) else None", "if is_met(r) else r.wave.met_at"),
    "illegal operator events pass": ("transitions", '("halted", "abort-keep"): "aborted",', '("halted", "advance"): "running",'),
}


def build(patches):
    """The step function of a copy of the sources with patches {module: (old, new)} applied; nothing installed is touched."""
    saved, made = {}, {}
    try:
        for name in ("barrier", "gates", "tally", "transitions", "engine"):
            path = HOME / f"{name}.py"
            source = path.read_text()
            if name in patches:
                old, new = patches[name]
                assert source.count(old) == 1, f"the patch of {name} must match exactly once: {old}"
                source = source.replace(old, new)
            full = f"edgeops.rollout.{name}"
            module = types.ModuleType(full)
            saved[full] = sys.modules.get(full)
            sys.modules[full] = made[name] = module
            setattr(room, name, module)
            exec(compile(source, str(path), "exec"), module.__dict__)
        return made["engine"].step
    finally:
        for full, module in saved.items():
            if module is None:
                del sys.modules[full]
            else:
                sys.modules[full] = module
                setattr(room, full.rpartition(".")[2], module)


def first_break(step) -> str:
    """The first law broken over all seeds, or the empty string."""
    for seed in SEEDS:
        try:
            inv.wander(step, seed)
        except (inv.Broken, RecursionError, KeyError) as error:
            return f"seed {seed}: {error!r}"
    return ""


def test_the_unpatched_sources_keep_every_law():
    """The control: the same harness without a patch finds nothing."""
    assert first_break(build({})) == ""


@pytest.mark.parametrize("name", MUTANTS)
def test_each_seeded_bug_is_caught(name):
    """A bug put into a copy of the sources breaks a law within the seeds."""
    module, old, new = MUTANTS[name]
    assert first_break(build({module: (old, new)})) != ""
