"""docs/api.md and docs/settings.md say what the code says: no route, role, field, reason, counter or setting is undocumented."""

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import cast

import pytest

from edgeops.api import problems, reference
from edgeops.api.app import OPEN, OPEN_READS, make_app
from edgeops.manager import reference as settings_reference
from edgeops.manager.hub import Hub
from edgeops.manager.settings import Settings
from edgeops.manager.tokens import ROLES

DOCS = Path(__file__).parents[2] / "docs"
API = (DOCS / "api.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("page", "module", "document"),
    [
        ("api.md", "edgeops.api.reference", reference.document),
        ("settings.md", "edgeops.manager.reference", settings_reference.document),
    ],
)
def test_page_is_up_to_date(page: str, module: str, document: Callable[[], str]) -> None:
    """Each page is what its module writes."""
    assert (DOCS / page).read_text("utf-8") == document(), f"run: python -m {module} > docs/{page}"


def test_every_operation_has_its_section() -> None:
    """Method, path, a sentence of at least three words, and the role or that it is open."""
    operations = list(reference.operations(make_app(cast(Hub, None)).openapi()))
    reads = {f"GET {path}" for path in OPEN_READS}
    sections = dict(re.findall(r"^## (\S+ \S+)\n\n(.+)$", API, re.MULTILINE))
    assert sections.keys() == {f"{method} {path}" for method, path, _ in operations}
    for name, told in sections.items():
        assert len(told.split()) > 5, name
        role = re.search(r"Needs (\w+)\. Answers", told)
        assert ("*Open.*" in told) == (name.split()[1] in OPEN or name in reads) and (role is None or role[1] in ROLES), name
        assert ("*Open.*" in told) != (role is not None), name


def test_every_parameter_and_field_has_its_row() -> None:
    """What a request may hold stands in the section of its operation."""
    found = make_app(cast(Hub, None)).openapi()
    for method, path, operation in reference.operations(found):
        section = API.split(f"## {method} {path}\n")[1].split("\n## ")[0]
        names = {one["name"] for one in operation.get("parameters", [])}
        for content in operation.get("requestBody", {}).get("content", {}).values():
            name = content.get("schema", {}).get("$ref", "/").rsplit("/", 1)[1]
            names |= set(found["components"]["schemas"].get(name, {}).get("properties", {}))
        assert names == set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)), (method, path)


def test_every_reason_with_a_status_is_listed() -> None:
    """Each reason that has a status of its own, and each kind."""
    rows = [line for line in API.splitlines() if re.match(r"\| \d{3} \|", line)]
    listed = {reason: int(row.split("|")[1]) for row in rows for reason in row.split("|")[2].replace(" ", "").split(",")}
    assert problems.STATUS.items() <= listed.items()
    assert all(f"| {kind} | {status} " in API for _, kind, status, _ in problems.KINDS)


def test_openapi_promises_problem_documents_and_nothing_else() -> None:
    """Every operation's errors are declared as what they are."""
    for _, path, operation in reference.operations(make_app(cast(Hub, None)).openapi()):
        errors = {code: answer for code, answer in operation["responses"].items() if not code.startswith("2")}
        assert {code: list(answer["content"]) for code, answer in errors.items()} == {"default": [problems.MEDIA]}, path


def test_every_setting_explains_itself() -> None:
    """Each setting has a sentence, and numbers have bounds that hold their default."""
    for item in fields(Settings):
        assert item.metadata["help"].endswith(".") and len(item.metadata["help"].split()) > 3, item.name
        if isinstance(item.default, int):
            assert item.metadata["low"] <= item.default <= item.metadata["high"], item.name
