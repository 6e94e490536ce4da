"""The arrows of the house: who imports whom."""

import configparser
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import grimp
import pytest

from .houses import HOUSES, PURE, ROOT, copied, files, imports, module_of

PURE_THIRD_PARTIES = {"numpy", "cryptography", "cbor2"}
IMPURE = {
    "asyncio", "concurrent", "fcntl", "http", "io", "logging", "mmap", "multiprocessing", "os", "pathlib", "platform", "random",
    "secrets", "select", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time", "urllib",
    "uuid", "queue", "selectors", "ctypes", "importlib",
}  # fmt: skip
# The child process and what runs in it, plus the in-process API, may load models; nothing else in the agent may.
MAY_LOAD_MODELS = {
    "edgeops_agent": "imports Model when first asked for it",
    "edgeops_agent.shell.model": "the in-process API: the caller's process, not the supervisor",
    "edgeops_agent.shell.probe": "runs in the worker",
    "edgeops_agent.shell.routes": "runs in the worker",
    "edgeops_agent.shell.served": "runs in the worker",
    "edgeops_agent.shell.session": "the only module that names onnxruntime",
    "edgeops_agent.shell.worker": "the worker process",
}
SEEDS = {
    "manager house layers": ("edgeops/store/rows.py", "import edgeops.manager.layout"),
    "agent house layers": ("agent/edgeops_agent/core/slot.py", "import edgeops_agent.shell.clock"),
    "the agent enters only wire parcel sketch": ("agent/edgeops_agent/shell/disk.py", "import edgeops.store.blobs"),
    "the manager house never enters the agent": ("edgeops/cli/show.py", "import edgeops_agent.client"),
    "the manager never makes releases": ("edgeops/manager/files.py", "import edgeops.forge.sign"),
    "remote commands go over HTTP": ("edgeops/cli/remote/status.py", "import edgeops.store.tables"),
    "pure rooms touch nothing": ("edgeops/wire/keys.py", "import random"),
    "the supervisor never loads a model": ("agent/edgeops_agent/shell/workers.py", "import edgeops_agent.shell.session"),
    "no cycles": ("edgeops/wire/errors.py", "import edgeops.wire.trust"),
}


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """Run lint-imports on the houses under `root`, without colours and without a cache."""
    program = Path(sys.executable).with_name("lint-imports")
    path = os.pathsep.join([str(root), str(root / "agent")])
    env = os.environ | {"PYTHONPATH": path, "NO_COLOR": "1", "COLUMNS": "200"}
    return subprocess.run([program, "--no-cache"], cwd=root, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_contracts_are_kept() -> None:
    """Every contract of .importlinter holds on the houses as they are."""
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_contracts_can_break(tmp_path: Path) -> None:
    """One forbidden import seeded per contract breaks exactly that contract's promise; none is decoration."""
    root = copied(tmp_path)
    for path, line in SEEDS.values():
        target = root / path
        target.write_text(target.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    done = lint(root)
    assert done.returncode == 1, done.stdout + done.stderr
    config = configparser.ConfigParser()
    config.read(ROOT / ".importlinter")
    names = {config[name]["name"] for name in config.sections() if name.startswith("importlinter:contract:")}
    assert names == set(SEEDS), "a contract without a seed"
    kept = [name for name in names if f"{name} BROKEN" not in done.stdout]
    assert not kept, f"seeded but kept: {kept}\n{done.stdout}"


def test_unlisted_room_is_noticed(tmp_path: Path) -> None:
    """A new room that no layer names is refused: the layers are exhaustive."""
    root = copied(tmp_path)
    (root / "edgeops/attic").mkdir()
    (root / "edgeops/attic/__init__.py").write_text("")
    done = lint(root)
    assert done.returncode == 1
    assert "attic" in done.stdout


def test_contracts_name_every_pure_room() -> None:
    """A pure room that has come to life stands in the contract on purity."""
    config = configparser.ConfigParser()
    config.read(ROOT / ".importlinter")
    listed = set(config["importlinter:contract:pure"]["source_modules"].split())
    alive = {module_of(f"{room}/__init__.py") for room in PURE if (ROOT / room / "__init__.py").exists()}
    assert alive <= listed


def impure(root: Path) -> list[str]:
    """Imports of pure rooms that are neither ours, nor harmless standard library, nor an allowed third party."""
    found = []
    for path, tree, _ in files(root):
        if path.startswith(tuple(f"{room}/" for room in PURE)):
            for name in imports(path, tree):
                top = name.split(".")[0]
                ours = top in {"edgeops", "edgeops_agent"} or top in PURE_THIRD_PARTIES
                if not ours and (top in IMPURE or top not in sys.stdlib_module_names):
                    found.append(f"{path}: {name}")
                if ours and (".random" in name or name == "numpy.memmap"):
                    found.append(f"{path}: {name}")
    return found


def strays(root: Path) -> list[str]:
    """Imports of the agent's house that leave for anything of the manager's house but the three shared rooms."""
    shared = ("edgeops.wire", "edgeops.parcel", "edgeops.sketch")
    return [
        f"{path}: {name}"
        for path, tree, _ in files(root)
        if path.startswith("agent/")
        for name in imports(path, tree)
        if name.split(".")[0] == "edgeops" and not name.startswith(shared) and name not in ("edgeops", "edgeops.__version__")
    ]


def test_pure_rooms_are_pure() -> None:
    """Pure rooms import no I/O, clock, randomness or logging, and of third parties only numpy, cryptography and cbor2."""
    assert not impure(ROOT)


def test_agent_leaves_only_for_shared_rooms() -> None:
    """The agent's house imports wire, parcel and sketch of the other house, and the version; nothing else."""
    assert not strays(ROOT)


@pytest.mark.parametrize(
    ("path", "line", "check"),
    [
        ("edgeops/parcel/stream.py", "import time", impure),
        ("edgeops/sketch/octets.py", "from scipy import stats", impure),
        ("agent/edgeops_agent/core/slot.py", "from os import path", impure),
        ("edgeops/fleet/device.py", "import socket", impure),
        ("agent/edgeops_agent/shell/disk.py", "from edgeops.api import app", strays),
        ("agent/edgeops_agent/cli/entry.py", "from edgeops import fleet", strays),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" in value else "",
)
def test_arrow_checks_can_fail(path: str, line: str, check: Callable[[Path], list[str]], tmp_path: Path) -> None:
    """Each check on syntax trees finds its seeded import."""
    target = copied(tmp_path) / path
    old = target.read_text(encoding="utf-8") if target.exists() else ""
    target.parent.mkdir(exist_ok=True)
    target.write_text(f"{old}\n{line}\n", encoding="utf-8")
    assert any(found.startswith(f"{path}:") for found in check(tmp_path))


def loaders(modules: Iterable[str]) -> set[str]:
    """Modules of the agent from which onnxruntime can be reached by imports."""
    graph = grimp.build_graph("edgeops", "edgeops_agent", include_external_packages=True, cache_dir=None)
    return {name for name in modules if graph.find_shortest_chain(importer=name, imported="onnxruntime")}


def test_only_workers_load_models() -> None:
    """In the agent, onnxruntime is reachable from the worker side and the in-process API only; the supervisor stays clean."""
    modules = {module_of(path) for path, _, _ in files(ROOT) if path.startswith("agent/")}
    assert len(modules) > 10, HOUSES
    assert loaders(modules) == MAY_LOAD_MODELS.keys() & modules
