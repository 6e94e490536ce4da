"""Documents: every attack is refused with its reason, honest ones pass, every check carries weight, no changed document gets in."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from . import vectors
from .judge import REAL, judge, without
from .mutants import MUTANTS
from .mutations import case_of, mutants

CASES = {case["id"]: case for case in vectors.load()}


def test_the_file_is_current() -> None:
    """The vectors that others test against are what the tables say; `python -m tests.attacks.vectors` writes them."""
    assert json.loads(vectors.FILE.read_text()) == json.loads(json.dumps(vectors.build()))


@pytest.mark.parametrize("name", CASES)
def test_a_case_ends_as_it_must(name: str) -> None:
    """Attacks are refused with the named reason and change nothing; honest documents change exactly what they should."""
    case = CASES[name]
    assert vectors.agrees(judge(REAL, case), case), case["story"]


def test_cases_are_distinct() -> None:
    """No attack stands twice in the table, and there are enough of them."""
    attacks = [case for case in vectors.load() if case["attack"]]
    assert len(CASES) == len(vectors.load())
    assert len({str(case["documents"]) + str(case["state"]) for case in attacks}) == len(attacks) >= 60


@pytest.mark.parametrize("number", range(len(MUTANTS)), ids=lambda n: f"{MUTANTS[n].file}:{MUTANTS[n].by}:{n}")
def test_every_check_carries_weight(number: int, tmp_path: Path) -> None:
    """With the check taken out of a copy the attack it stands against succeeds; so the table would have caught its loss."""
    mutant = MUTANTS[number]
    case = CASES[mutant.by]
    with without(mutant.file, mutant.old, mutant.new, tmp_path, f"attacked_{number}") as code:
        verdict = judge(code, case)
        assert not verdict.refused and verdict.slots.get("main", ("",))[0] != "unfit"


def believed(most: int, code: Any = REAL) -> tuple[int, list[str]]:
    """(how many changed documents were tried, what was done to those that were believed)."""
    tried, found = 0, []
    for said, offer in mutants():
        tried += 1
        if not judge(code, case_of(offer)).refused:
            found.append(said)
        if len(found) > most:
            break
    return tried, found


def test_no_changed_document_is_believed(tell: Callable[[str], None]) -> None:
    """Flips, swaps, respellings, type confusions and wrong signatures are all refused, and none of them is a crash."""
    tried, found = believed(20)
    assert found == [] and tried >= 10_000
    tell(f"changed documents: {tried} refused of {tried}")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("wire/envelope", "if not is_signed(keys[keyid], signature, message):", "if False:"),
        ("wire/canonical", "if again != data:", "if False:"),
        ("wire/fields", "if isinstance(value, bool) or not isinstance(value, int) or value < least:", "if False:"),
    ],
)
def test_changed_documents_find_a_lax_reader(file: str, old: str, new: str, tmp_path: Path) -> None:
    """With a check taken out of a copy some changed documents are believed, or crash it: the test above can fail."""
    with without(file, old, new, tmp_path, f"lax_{Path(file).name}") as code:
        try:
            assert believed(0, code)[1]
        except (TypeError, AttributeError, OverflowError):
            return
