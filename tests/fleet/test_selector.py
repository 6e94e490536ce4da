"""Selectors: grammar, meaning, round trip."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeops.fleet.selector import Selector, Term, parse_selector
from edgeops.wire.errors import Misuse

BERLIN = {"site": "berlin", "hw": "pi4", "gpu": "yes", "id": "dev-1"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", True),
        ("site=berlin", True),
        ("site==berlin", True),
        (" site = berlin ", True),
        ("site=rome", False),
        ("site=berlin,hw!=pi4", False),
        ("site=berlin,hw!=pi5", True),
        ("ring!=canary", True),
        ("site in (rome,berlin)", True),
        ("site in (rome, paris)", False),
        ("site notin (rome),gpu", True),
        ("ring notin (a,b)", True),
        ("gpu", True),
        ("!gpu", False),
        ("!ring", True),
        ("id=dev-1", True),
        ("id in (dev-2,dev-3)", False),
    ],
)
def test_meaning(text, expected):
    """Each form of a term means what the module's docstring says."""
    assert parse_selector(text).matches(BERLIN) is expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ",",
        "a,,b",
        "all,a",
        "a,all",
        "a=",
        "=a",
        "a=b=c",
        "a in ()",
        "a in (b",
        "a in b",
        "in (a)",
        "!",
        "!!a",
        "a b",
        "a!b",
        "a in (b,,c)",
        "notin=a",
        "a=b c",
        "a=(b)",
        "a>1",
        "é=1",
        "a" * 2001,
    ],
)
def test_nonsense_is_refused(text):
    """A selector we do not understand is refused, never guessed."""
    with pytest.raises(Misuse) as caught:
        parse_selector(text)
    assert caught.value.reason == "selector-invalid"
    assert "examples" in caught.value.message


keys = st.sampled_from(["site", "hw", "gpu", "a/b", "x.y", "id"])
values = st.sampled_from(["a", "b", "berlin", "1", "pi-4", "_"])
terms = st.one_of(
    st.builds(Term, keys, st.sampled_from(["has", "lacks"])),
    st.builds(Term, keys, st.sampled_from(["in", "notin"]), st.sets(values, min_size=1).map(sorted).map(tuple)),
)
selectors = st.builds(Selector, st.lists(terms, max_size=5).map(tuple))
labels = st.dictionaries(keys, values)


@given(selectors)
def test_text_and_value_round_trip(selector):
    """Writing a selector and reading it again gives the same selector."""
    assert parse_selector(str(selector)) == selector


@given(selectors, labels)
def test_a_selector_is_the_and_of_its_terms(selector, facts):
    """A selector matches exactly when each of its terms matches alone."""
    assert selector.matches(facts) == all(Selector((t,)).matches(facts) for t in selector.terms)


@given(keys, st.sets(values, min_size=1).map(sorted).map(tuple), labels)
def test_in_and_notin_are_opposites(key, chosen, facts):
    """Every device is in a set or not in it, and so with present and absent."""
    assert Term(key, "in", chosen).matches(facts) != Term(key, "notin", chosen).matches(facts)
    assert Term(key, "has").matches(facts) != Term(key, "lacks").matches(facts)


@given(selectors, labels, values)
def test_only_the_named_labels_matter(selector, facts, value):
    """A label the selector does not name cannot change who matches."""
    other = {k: v for k, v in facts.items() if k in selector.keys}
    assert selector.matches({**other, "elsewhere": value}) == selector.matches(facts)


@given(st.text(max_size=40))
def test_any_text_parses_or_is_misuse(text):
    """No text makes the parser fail in another way than by Misuse."""
    try:
        parse_selector(text)
    except Misuse as error:
        assert error.reason == "selector-invalid"
