"""Names and sizes: no junk-drawer names, no long files or functions, a docstring wherever somebody may look."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .houses import ROOT, copied, files, trees_of_tests

JUNK = {"Manager", "Service", "Helper", "Helpers", "Util", "Utils", "Handler", "Factory", "Base", "Common", "Misc"}
# Names that speak of the manager itself (the room, the program), not of something vague.
SPEAKS_OF_THE_MANAGER = {
    "edgeops/manager": "the room",
    "ManagerLink": "the manager's MQTT link, as against the device's",
}
NORMAL, MOST, FUNCTION = 300, 500, 40
LONG_FILES = {
    "agent/edgeops_agent/core/update.py": "one step function and its cases",
    "edgeops/rollout/engine.py": "one step function and its cases; apart they would have to be read together",
}
LONG_FUNCTIONS = {
    "edgeops/store/migrations/": "a migration is a list of columns, frozen once released",
}
PUBLIC = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
Check = Callable[[Path], list[str]]


def words(name: str) -> set[str]:
    """The words a CamelCase or snake_case name is made of, capitalised."""
    return {part.capitalize() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)}


def junk_names(root: Path) -> list[str]:
    """Classes, modules and packages whose names say nothing."""
    found = []
    for path, tree, _ in files(root):
        rest = path
        for allowed in (name for name in SPEAKS_OF_THE_MANAGER if "/" in name):
            rest = rest.removeprefix(f"{allowed}/")
        if any(words(part) & JUNK for part in rest.removesuffix(".py").split("/")):
            found.append(path)
        classes = (node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
        found.extend(f"{path}: {name}" for name in classes if words(name) & JUNK and name not in SPEAKS_OF_THE_MANAGER)
    return found


def long_files(root: Path) -> list[str]:
    """Files over the hard limit, or over the normal one without a reason."""
    return [
        f"{path}: {lines} lines" for path, _, lines in files(root) if lines > (MOST if path in LONG_FILES else NORMAL)
    ]


def long_functions(root: Path) -> list[str]:
    """Functions of more than 40 lines, signature and docstring included."""
    found = []
    for path, tree, _ in files(root):
        if not path.startswith(tuple(LONG_FUNCTIONS)):
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    lines = (node.end_lineno or 0) - node.lineno + 1
                    found.extend([f"{path}: {node.name} has {lines} lines"] if lines > FUNCTION else [])
    return found


def silent_packages(root: Path) -> list[str]:
    """Rooms whose docstring does not say what they know, what they do not, and who may enter."""
    found = []
    for path, tree, _ in files(root):
        is_room = path.endswith("/__init__.py") and path.count("/") == (3 if path.startswith("agent/") else 2)
        said = (ast.get_docstring(tree) or "").lower()
        tells = "knows" in said and re.search(r"does\s+not\s+know", said) and re.search(r"may\s+enter", said)
        if path.endswith("/__init__.py") and not (tells if is_room else said):
            found.append(path)
    return found


def undocumented(root: Path) -> list[str]:
    """Modules, public classes, functions and methods without a docstring."""
    return [
        f"{path}: {name}"
        for path, tree, _ in files(root)
        for name in _bare(tree)
        if not path.startswith("edgeops/store/migrations/")
    ]


def _bare(tree: ast.Module) -> Iterator[str]:
    if not ast.get_docstring(tree):
        yield "module"
    for scope in [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]:
        inside = isinstance(scope, ast.ClassDef)
        for node in scope.body:
            hidden = isinstance(node, PUBLIC) and (node.name.startswith("_") or (inside and scope.name.startswith("_")))
            overload = isinstance(node, PUBLIC) and any("overload" in ast.dump(mark) for mark in node.decorator_list)
            if isinstance(node, PUBLIC) and not hidden and not overload and not ast.get_docstring(node):
                yield node.name


def silent_tests(root: Path) -> list[str]:
    """Tests without a sentence that says what they prove."""
    return [
        f"{path}: {node.name}"
        for path, tree in trees_of_tests(root)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if node.name.startswith("test_") and not ast.get_docstring(node)
    ]


CHECKS: list[Check] = [junk_names, long_files, long_functions, silent_packages, undocumented, silent_tests]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_houses_are_tidy(check: Check) -> None:
    """Both houses and the tests pass every check on names, sizes and docstrings."""
    assert not check(ROOT)


@pytest.mark.parametrize(
    ("check", "path", "text"),
    [
        (junk_names, "edgeops/wire/helpers.py", '"""M."""\n'),
        (junk_names, "edgeops/wire/seed.py", 'class FrameHandler:\n    """F."""\n'),
        (junk_names, "edgeops/manager/base_link.py", '"""M."""\n'),
        (junk_names, "agent/edgeops_agent/core/seed.py", 'class _HTTPService:\n    """F."""\n'),
        (long_files, "edgeops/wire/seed.py", "#\n" * 301),
        (long_files, "edgeops/rollout/engine.py", "#\n" * 501),
        (long_functions, "edgeops/wire/seed.py", "def seed():\n" + "    pass\n" * 40),
        (silent_packages, "edgeops/attic/__init__.py", '"""An attic. Knows: dust. Who may enter: all."""\n'),
        (silent_packages, "edgeops/wire/nook/__init__.py", ""),
        (undocumented, "edgeops/wire/seed.py", '"""M."""\n\n\ndef seed():\n    return 1\n'),
        (undocumented, "edgeops/wire/seed.py", '"""M."""\nclass Seed:\n    """S."""\n    def grow(self):\n        return 1\n'),
        (silent_tests, "tests/test_seed.py", "def test_seed():\n    pass\n"),
    ],
    ids=lambda value: value.__name__ if callable(value) else (value if "/" in value else ""),
)
def test_tidiness_checks_can_fail(check: Check, path: str, text: str, tmp_path: Path) -> None:
    """Each check names the file of its seeded violation and does not name it before."""
    target = copied(tmp_path) / path
    before = [found for found in check(tmp_path) if found.startswith(path)]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    assert not before
    assert any(found.startswith(path) for found in check(tmp_path))
