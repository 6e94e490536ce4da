"""Where the two houses lie, read as syntax trees; the checks take a root so that they can be tried on a seeded copy."""

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOUSES = ("edgeops", "agent/edgeops_agent")
PURE = (
    "edgeops/wire", "edgeops/parcel", "edgeops/sketch", "edgeops/rollout", "edgeops/fleet", "agent/edgeops_agent/core",
)  # fmt: skip


def files(root: Path) -> Iterator[tuple[str, ast.Module, int]]:
    """(path within root, tree, lines) of every Python file of both houses."""
    for house in HOUSES:
        for path in sorted((root / house).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            yield path.relative_to(root).as_posix(), ast.parse(text), text.count("\n")


def trees_of_tests(root: Path) -> Iterator[tuple[str, ast.Module]]:
    """(path within root, tree) of every test file."""
    for path in sorted((root / "tests").rglob("test_*.py")):
        yield path.relative_to(root).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def copied(to: Path) -> Path:
    """A copy of both houses and their contracts, to break on purpose."""
    for house in HOUSES:
        shutil.copytree(ROOT / house, to / house, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", to)
    return to


def module_of(path: str) -> str:
    """Dotted module name of a path within root."""
    parts = path.removeprefix("agent/").removesuffix(".py").split("/")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: str, tree: ast.Module) -> Iterator[str]:
    """Absolute names of all modules a file imports, wherever in the file (relative ones resolved)."""
    package = module_of(path).split(".") if path.endswith("__init__.py") else module_of(path).split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
