"""Conditions over facts: what each kind of term means, what is unknown, what is no term."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeops.wire.conditions import Conditions, Fact, check_term, unmet
from edgeops.wire.errors import Rejected
from edgeops.wire.fields import Fields

MONDAY_NOON, FRIDAY_23, SATURDAY_3 = 12 * 60, 4 * 1440 + 23 * 60, 5 * 1440 + 3 * 60


@pytest.mark.parametrize(
    ("term", "facts", "holds"),
    [
        ("parked", {"parked": True}, True), ("parked", {"parked": "yes"}, True), ("parked", {"parked": 1}, True),
        ("parked", {"parked": False}, False), ("parked", {"parked": "no"}, False), ("parked", {"parked": "maybe"}, False),
        ("parked", {}, False), ("!metered", {"metered": False}, True), ("!metered", {"metered": "no"}, True),
        ("!metered", {"metered": True}, False), ("!metered", {"metered": "perhaps"}, False), ("!metered", {}, False),
        ("power=external", {"power": "external"}, True), ("power=external", {"power": "battery"}, False),
        ("power=external", {}, False),
        ("power!=battery", {"power": "external"}, True), ("power!=battery", {"power": "battery"}, False),
        ("power!=battery", {}, False), ("parked=yes", {"parked": True}, True), ("parked=no", {"parked": False}, True),
        ("parked!=yes", {"parked": False}, True), ("slots=3", {"slots": 3}, True),
        ("battery>=30", {"battery": 30}, True), ("battery>=30", {"battery": 29}, False), ("battery>=30", {"battery": "31"}, True),
        ("battery>=30", {"battery": "full"}, False), ("battery>=30", {"battery": True}, False), ("battery>=30", {}, False),
        ("temperature_c<70", {"temperature_c": 70}, False), ("temperature_c<70", {"temperature_c": -3}, True),
        ("load_pct<=50", {"load_pct": 50}, True), ("memory_free_mb>200", {"memory_free_mb": 200}, False),
        ("window=22:00-06:00", {"minute_of_week": FRIDAY_23}, True), ("window=22:00-06:00", {"minute_of_week": MONDAY_NOON}, False),
        ("window=22:00-06:00", {}, False), ("window=sat-sun@22:00-06:00", {"minute_of_week": SATURDAY_3}, False),
        ("window=fri@22:00-06:00", {"minute_of_week": SATURDAY_3}, True),
        ("window=fri-mon@00:00-00:00", {"minute_of_week": 5}, True),
        ("window=sun@23:00-01:00", {"minute_of_week": 30}, True), ("window=06:00-06:00", {"minute_of_week": 1}, True),
    ],
)  # fmt: skip
def test_what_a_term_means(term: str, facts: dict[str, Fact], holds: bool) -> None:
    """Each kind of term over facts that hold, do not hold, are of another kind, or are not known."""
    assert unmet((term,), facts) == (() if holds else (term,))


@given(st.integers(0, 10_079), st.integers(0, 6), st.integers(0, 1439), st.integers(0, 1439))
def test_windows_agree_with_a_walk_through_the_week(minute: int, day: int, begin: int, end: int) -> None:
    """A minute is in a day's window if walking minute by minute from the window's beginning meets it before the end."""
    days = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    term = f"window={days[day]}@{begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}"
    inside = {(day * 1440 + begin + passed) % 10_080 for passed in range((end - begin) % 1440 or 1440)}
    assert (not unmet((term,), {"minute_of_week": minute})) is (minute in inside)


@pytest.mark.parametrize(
    "term",
    ["", "!", "Parked", "a b", "parked&x", "!a=b", "battery>=x", "battery>", "window", "window=1", "window>=22:00-06:00", "x" * 40,
     "window=24:00-01:00", "window=mon-xyz@01:00-02:00", "window=22:00-06:00-01:00", "a==b", "é", "a=", "a=" + "b" * 33],
)  # fmt: skip
def test_what_is_no_term(term: str) -> None:
    """Anything else is refused where it is read, by its own reason."""
    with pytest.raises(Rejected, match="bad-condition"):
        check_term(term)
    with pytest.raises(Rejected, match="bad-condition"):
        Conditions.parse(Fields({"activate": [term]}, "x"))


def test_what_is_not_said_waits_for_nothing() -> None:
    """Empty conditions are an empty object, and read as such; a wait without end is refused."""
    assert Conditions().payload() == {} and Conditions.parse(Fields({}, "x")) == Conditions()
    with pytest.raises(Rejected):
        Conditions.parse(Fields({"wait_s": 91 * 86_400}, "x"))
