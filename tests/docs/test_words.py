"""docs/architecture.md and the glossary keep up with the words of the code."""

import re
from pathlib import Path

import pytest

from edgeops.wire import envelope, topics

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "architecture.md").read_text("utf-8")
GLOSSARY = (DOCS / "glossary.md").read_text("utf-8")


def missing(page: str) -> set[str]:
    """Topics and document types that have no row of their own on the page."""
    rows = {line.split("|")[1].strip() for line in page.splitlines() if line.startswith("|")}
    wanted = {f"`e/1/{{sh}}/d/{{id}}/dn/{noun}`" for noun in topics.DOWN}
    wanted |= {f"`e/1/{{sh}}/d/{{id}}/up/{noun}`" for noun in topics.UP} | {f"`{name}`" for name in envelope.TYPES}
    return wanted - rows


def test_topics_and_documents_are_described() -> None:
    """Every topic noun and every document type has a row in docs/architecture.md."""
    assert not missing(PAGE)


@pytest.mark.parametrize("word", ["dn/desired`", "up/tele`", "| `floor`", "| `renew`"])
def test_a_lost_row_is_noticed(word: str) -> None:
    """Without one row the check fails."""
    assert PAGE.count(word) >= 1
    assert missing(PAGE.replace(word, "?"))


def test_no_row_is_left_over() -> None:
    """The page describes no device topic the code does not have."""
    found = set(re.findall(r"`e/1/\{sh\}/d/\{id\}/(?:dn|up)/(\w+)`", PAGE))
    assert found == {*topics.DOWN, *topics.UP}


def test_rooms_are_described() -> None:
    """Every room of both houses has a row in docs/architecture.md."""
    root = DOCS.parent
    rooms = [path.parent for house in ("edgeops", "agent/edgeops_agent") for path in (root / house).glob("*/__init__.py")]
    assert rooms
    assert not [room for room in rooms if f"`{room.relative_to(root).as_posix()}" not in PAGE]


def test_glossary_is_sorted_and_has_no_doubles() -> None:
    """A word is found where one looks for it, and stands once."""
    words = [line.split("|")[1].strip() for line in GLOSSARY.splitlines() if line.startswith("|")][2:]
    assert words == sorted(set(words))
    assert len(words) > 30


def test_decisions_have_a_status() -> None:
    """Every decision record is numbered like its file and says whether it holds."""
    for path in (DOCS / "adr").glob("*.md"):
        text = path.read_text("utf-8")
        assert text.startswith(f"# {int(path.name[:4])}. "), path.name
        assert re.search(r"^(Accepted|Replaced by|Proposed)", text, re.MULTILINE), path.name
