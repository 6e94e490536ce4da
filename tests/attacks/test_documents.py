"""Documents: every attack is refused with its reason, honest ones pass, and every check carries weight."""

import json
from pathlib import Path

import pytest

from . import vectors
from .judge import REAL, Code, judge, without
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


def one_believed(code: Code) -> bool:
    """Whether any changed document is believed."""
    return any(not judge(code, case_of(offer)).refused for _, offer in mutants())


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("wire/envelope", "if not is_signed(keys[keyid], signature, message):", "if False:"),
        ("wire/canonical", "if again != data:", "if False:"),
        ("wire/fields", "if isinstance(value, bool) or not isinstance(value, int) or value < least:", "if False:"),
    ],
)
def test_changed_documents_find_a_lax_reader(file: str, old: str, new: str, tmp_path: Path) -> None:
    """With a check taken out of a copy some changed documents are believed, or crash it: test_device.py can fail."""
    with without(file, old, new, tmp_path, f"lax_{Path(file).name}") as code:
        try:
            assert one_believed(code)
        except (TypeError, AttributeError, OverflowError):
            return
