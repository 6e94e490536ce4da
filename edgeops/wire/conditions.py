"""When a device may fetch, activate and commit: terms over facts of that device, all of which must hold.

`parked` (the fact is true), `!metered` (it is known and false), `power=external`, `power!=battery`, `battery>=30` (also <=, >, <),
`window=22:00-06:00` or `window=sat-sun@22:00-06:00`: a time of the device's own week, which belongs to the day it begins on.
`consent` is said by a person at the device, `online` by the link to the manager, everything else by the device's facts.
No term holds over a fact that nobody states: what is not known cannot be relied upon.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import Rejected
from .fields import ID, Fields, brief

Fact = str | int | bool
Facts = Mapping[str, Fact]
CONSENT, ONLINE, MINUTE = "consent", "online", "minute_of_week"
MAX_TERMS, MAX_WAIT_S = 16, 90 * 86_400
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY, _WEEK = 1440, 7 * 1440
_NAME = r"[a-z][a-z0-9_]{0,31}"
_TERM = re.compile(rf"(!?)({_NAME})(?:(>=|<=|!=|=|>|<)([A-Za-z0-9_.:@-]{{1,32}}))?")
_WINDOW = re.compile(r"(?:([a-z]{3})(?:-([a-z]{3}))?@)?([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_COMPARE: Mapping[str, Callable[[int, int], bool]] = {
    ">=": lambda a, b: a >= b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, "<": lambda a, b: a < b,
}  # fmt: skip
_TRUE, _FALSE = ("yes", "true"), ("no", "false")


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a slot waits for before it fetches, activates and commits. Each wait ends after `wait_s`, the last after `commit_s`.

    With a `barrier` it commits only when the manager says that every device of the barrier has passed its trial.
    """

    fetch: tuple[str, ...] = ()
    activate: tuple[str, ...] = ()
    commit: tuple[str, ...] = ()
    barrier: str = ""
    wait_s: int = 7 * 86_400
    commit_s: int = 86_400

    def payload(self) -> dict[str, Any]:
        """The JSON payload: what differs from waiting for nothing."""
        body = {name: getattr(self, name) for name in Conditions.__slots__}
        return brief({**body, **{name: list(body[name]) for name in GATES}}, _USUAL)

    @staticmethod
    def parse(fields: Fields) -> "Conditions":
        """Read conditions; raises Rejected("malformed" | "bad-condition")."""
        fetch, activate, commit = (fields.texts(name, most=MAX_TERMS, default=()) for name in GATES)
        for term in (*fetch, *activate, *commit):
            check_term(term)
        usual = Conditions()
        return Conditions(
            fetch, activate, commit, fields.text("barrier", ID, default=""),
            fields.number("wait_s", 1, usual.wait_s, MAX_WAIT_S), fields.number("commit_s", 1, usual.commit_s, MAX_WAIT_S),
        )  # fmt: skip


GATES = ("fetch", "activate", "commit")
_USUAL: Mapping[str, Any] = {"fetch": [], "activate": [], "commit": [], "barrier": "", "wait_s": 7 * 86_400, "commit_s": 86_400}


def check_term(text: str) -> None:
    """Raise Rejected("bad-condition") unless `text` is a term."""
    _, name, op, value = _split(text)
    if name == "window":
        _window(text, op, value)
    elif op in _COMPARE and _number(value) is None:
        raise _bad(text, f"{op} compares whole numbers")


def about(terms: tuple[str, ...], fact: str) -> tuple[str, ...]:
    """The terms over this fact; raises Rejected("bad-condition")."""
    return tuple(term for term in terms if _split(term)[1] == fact)


def unmet(terms: tuple[str, ...], facts: Facts) -> tuple[str, ...]:
    """The terms that do not hold; raises Rejected("bad-condition") for what is no term."""
    return tuple(term for term in terms if not _holds(term, facts))


def _holds(text: str, facts: Facts) -> bool:
    negated, name, op, value = _split(text)
    if name == "window":
        minute = facts.get(MINUTE)
        return isinstance(minute, int) and any((minute - start) % _WEEK < length for start, length in _window(text, op, value))
    fact = facts.get(name)
    if fact is None:
        return False
    if not op:
        return _is(fact, not negated)
    if op in _COMPARE:
        known, wanted = _number(fact), _number(value)
        return known is not None and wanted is not None and _COMPARE[op](known, wanted)
    return _equals(fact, value) is (op == "=")


def _split(text: str) -> tuple[bool, str, str, str]:
    """(negated, fact, operator, value)."""
    found = _TERM.fullmatch(text)
    if found is None or (found[1] and found[3]):
        raise _bad(text, "write a fact, !fact, or fact and value with =, !=, >=, <=, > or <")
    return bool(found[1]), found[2], found[3] or "", found[4] or ""


def _window(text: str, op: str, value: str) -> list[tuple[int, int]]:
    """(first minute of the week, length in minutes) of each day's window."""
    found = _WINDOW.fullmatch(value) if op == "=" else None
    if found is None:
        raise _bad(text, "write window=22:00-06:00 or window=sat-sun@22:00-06:00")
    first, last = found[1] or "mon", found[2] or found[1] or "sun"
    if first not in DAYS or last not in DAYS:
        raise _bad(text, f"days are {', '.join(DAYS)}")
    days = range(DAYS.index(first), DAYS.index(first) + (DAYS.index(last) - DAYS.index(first)) % 7 + 1)
    begin, end = int(found[3]) * 60 + int(found[4]), int(found[5]) * 60 + int(found[6])
    return [(day % 7 * _DAY + begin, (end - begin) % _DAY or _DAY) for day in days]


def _is(fact: Fact, wanted: bool) -> bool:
    if isinstance(fact, str):
        return fact.lower() in (_TRUE if wanted else _FALSE)
    return bool(fact) is wanted


def _equals(fact: Fact, value: str) -> bool:
    if isinstance(fact, bool):
        return _is(fact, True) if value in _TRUE else _is(fact, False) if value in _FALSE else False
    return str(fact) == value


def _number(value: Fact) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        return int(value)
    except ValueError:
        return None


def _bad(text: str, why: str) -> Rejected:
    return Rejected("bad-condition", f"{text[:64]!r} is no condition: {why}")
