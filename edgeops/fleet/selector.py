"""Selectors: which devices a group means. Terms are joined by commas and must all hold.

all                 every device
site=berlin         the label has this value (== is the same)
hw!=pi4             the label is absent or has another value, as in Kubernetes
site in (a,b)       the label has one of these values
site notin (a,b)    the label is absent or has none of these values
gpu  /  !gpu        the label is present / absent
id=dev-7            this device
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edgeops.fleet.device import is_label_key, is_label_value
from edgeops.wire.errors import Misuse

Op = Literal["in", "notin", "has", "lacks"]
MAX_CHARS = 2_000
_SPLIT = re.compile(r",(?![^(]*\))")
_SET = re.compile(r"(\S+)\s+(in|notin)\s*\(([^()]*)\)")
_PAIR = re.compile(r"([^=!\s]+)\s*(==|!=|=)\s*(\S+)")
_EXAMPLES = "examples: all | site=berlin,hw!=pi4 | site in (a,b) | gpu | !gpu"


@dataclass(frozen=True, slots=True)
class Term:
    """One condition on one label; `values` is sorted and empty for `has` and `lacks`."""

    key: str
    op: Op
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels meet this condition."""
        value = labels.get(self.key)
        if self.op == "has":
            return value is not None
        if self.op == "lacks":
            return value is None
        return (value in self.values) == (self.op == "in")

    def __str__(self) -> str:
        if self.op in ("has", "lacks"):
            return self.key if self.op == "has" else f"!{self.key}"
        if len(self.values) == 1:
            return f"{self.key}{'=' if self.op == 'in' else '!='}{self.values[0]}"
        return f"{self.key} {self.op} ({','.join(self.values)})"


@dataclass(frozen=True, slots=True)
class Selector:
    """All terms must hold; no terms at all is `all`."""

    terms: tuple[Term, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a device with these labels, its own `id` among them, is meant."""
        return all(term.matches(labels) for term in self.terms)

    def __str__(self) -> str:
        return ",".join(map(str, self.terms)) or "all"

    @property
    def keys(self) -> frozenset[str]:
        """The labels this selector reads: a change of any other cannot change who matches."""
        return frozenset(term.key for term in self.terms)


def parse_selector(text: str) -> Selector:
    """Read a selector. Raises `Misuse("selector-invalid")` naming the wrong term."""
    text = text.strip()
    if len(text) > MAX_CHARS:
        raise _refuse(text[:40] + "…", f"longer than {MAX_CHARS} characters")
    if text == "all":
        return Selector()
    if not text:
        raise _refuse(text, "it is empty; to mean every device write all")
    return Selector(tuple(_term(text, part.strip()) for part in _SPLIT.split(text)))


def _term(text: str, part: str) -> Term:
    if not part:
        raise _refuse(text, "a term between two commas is empty")
    if part == "all":
        raise _refuse(text, "all stands alone; drop it or the other terms")
    if many := _SET.fullmatch(part):
        values = tuple(sorted({_value(text, v.strip()) for v in many[3].split(",")}))
        return Term(_key(text, many[1]), "in" if many[2] == "in" else "notin", values)
    if pair := _PAIR.fullmatch(part):
        return Term(_key(text, pair[1]), "notin" if pair[2] == "!=" else "in", (_value(text, pair[3]),))
    if part.startswith("!"):
        return Term(_key(text, part[1:].strip()), "lacks")
    return Term(_key(text, part), "has")


def _key(text: str, key: str) -> str:
    if key != "id" and not is_label_key(key):
        raise _refuse(text, f"{key!r} is not a label key")
    return key


def _value(text: str, value: str) -> str:
    if not is_label_value(value):
        raise _refuse(text, f"{value!r} is not a label value" if value else "a value is missing")
    return value


def _refuse(text: str, why: str) -> Misuse:
    return Misuse("selector-invalid", f"selector {text!r}: {why}; {_EXAMPLES}")
