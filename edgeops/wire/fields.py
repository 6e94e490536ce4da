"""Typed reading of decoded documents: each wrong field is named, in which document, and what was expected."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import Rejected

ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
HEX64 = re.compile(r"[0-9a-f]{64}")
HEX32 = re.compile(r"[0-9a-f]{32}")


def brief(body: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """`body` without the members that have their `usual` value, which every reader takes for granted."""
    return {name: value for name, value in body.items() if name not in usual or value != usual[name]}


@dataclass(frozen=True, slots=True)
class Fields:
    """A JSON object being read; `where` names it in errors. Every reader raises Rejected("malformed")."""

    data: Mapping[str, Any]
    where: str

    @staticmethod
    def of(value: Any, where: str) -> "Fields":
        """Wrap `value`, which must be an object."""
        if not isinstance(value, dict):
            raise Rejected("malformed", f"{where}: expected an object")
        return Fields(value, where)

    def _get(self, name: str, default: Any) -> Any:
        value = self.data.get(name, default)
        if value is ...:
            raise Rejected("malformed", f"{self.where}: field {name!r} is missing")
        return value

    def fail(self, name: str, wanted: str) -> Rejected:
        """The error for field `name`."""
        return Rejected("malformed", f"{self.where}: field {name!r} must be {wanted}")

    def text(self, name: str, pattern: re.Pattern[str] | None = None, default: Any = ..., most: int = 4096) -> str:
        """A string of at most `most` characters, matching `pattern` wholly."""
        value = self._get(name, default)
        if not isinstance(value, str) or len(value) > most:
            raise self.fail(name, f"a string of at most {most} characters")
        if pattern is not None and value != default and not pattern.fullmatch(value):
            raise self.fail(name, f"of the form {pattern.pattern}")
        return value

    def number(self, name: str, least: int = 0, default: Any = ..., most: int | None = None) -> int:
        """An integer, at least `least` and at most `most` where that is given."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.fail(name, f"an integer >= {least}")
        if most is not None and value > most:
            raise self.fail(name, f"an integer from {least} to {most}")
        return value

    def items(self, name: str, most: int = 4096, default: Any = ...) -> list[Any]:
        """A list of at most `most` items."""
        value = self._get(name, default)
        if not isinstance(value, list | tuple) or len(value) > most:
            raise self.fail(name, f"a list of at most {most} items")
        return list(value)

    def texts(self, name: str, pattern: re.Pattern[str] | None = None, most: int = 256, default: Any = ...) -> tuple[str, ...]:
        """A list of strings."""
        values = self.items(name, most, default)
        for value in values:
            if not isinstance(value, str) or (pattern is not None and not pattern.fullmatch(value)):
                raise self.fail(name, f"a list of strings{' ' + pattern.pattern if pattern else ''}")
        return tuple(values)

    def mapping(self, name: str, most: int = 256, default: Any = ...) -> dict[str, Any]:
        """An object of at most `most` members."""
        value = self._get(name, default)
        if not isinstance(value, dict) or len(value) > most:
            raise self.fail(name, f"an object of at most {most} members")
        return value

    def sub(self, name: str, default: Any = ...) -> "Fields":
        """The object at `name`, with its own path."""
        return Fields(self.mapping(name, 4096, default), f"{self.where}.{name}")

    def each(self, name: str, read: Callable[["Fields"], Any], most: int = 256) -> dict[str, Any]:
        """Read every member of the object at `name` with `read`; member names are ids."""
        result: dict[str, Any] = {}
        for key, value in self.mapping(name, most).items():
            if not ID.fullmatch(key):
                raise self.fail(name, f"keyed by ids {ID.pattern}")
            result[key] = read(Fields.of(value, f"{self.where}.{name}.{key}"))
        return result

    def objects(self, name: str, read: Callable[["Fields"], Any], most: int = 256, default: Any = ...) -> tuple[Any, ...]:
        """Read every object of the list at `name` with `read`."""
        values = self.items(name, most, default)
        return tuple(read(Fields.of(value, f"{self.where}.{name}[{index}]")) for index, value in enumerate(values))

    def counts(self, name: str, most: int = 64) -> dict[str, int]:
        """An object of non-negative integers."""
        values = self.mapping(name, most)
        for value in values.values():
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise self.fail(name, "an object of integers >= 0")
        return dict(values)
