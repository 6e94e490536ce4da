"""A device: a clean environment with the base install and nothing else, from a wheel of this tree."""

import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def command(*argv: str | Path) -> str:
    """Run to success; its output."""
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="session")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment's folder. Versions are those of this environment, which the lock file decides."""
    place = tmp_path_factory.mktemp("device")
    tree, wheels, venv = place / "tree", place / "wheels", place / "venv"
    for name in ("edgeops", "agent"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", ".mypy_cache"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tree / name)
    command(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", wheels, tree)
    pins = place / "pins.txt"
    pins.write_text("".join(f"{one.name}=={one.version}\n" for one in distributions() if one.name != "edgeops"))
    command(sys.executable, "-m", "venv", venv)
    (wheel,) = wheels.glob("*.whl")
    command(venv / "bin" / "python", "-m", "pip", "install", "-q", "-c", pins, wheel)
    return venv
