"""Canonical JSON: one value, one byte string, in Python and in a browser alike.

Sorted ASCII keys, NFC strings, integers only (|x| <= 2**53-1), no duplicate keys, no white space. What does not re-encode to the
same bytes is refused, so a signature never covers two readings.
"""

import json
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from .errors import Misuse, Rejected

LIMIT = 2**53 - 1
MAX_BYTES = 1 << 20
MAX_DEPTH = 16
_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False, check_circular=False)


def encode(value: Any) -> bytes:
    """Canonical UTF-8 bytes of `value`; raises Misuse for floats, huge integers, odd keys or strings that are not NFC."""
    problem = _problem(value, 0)
    if problem:
        raise Misuse("not-canonical", f"cannot encode: {problem}")
    return _ENCODER.encode(value).encode()


def decode(data: bytes, what: str = "document", limit: int = MAX_BYTES) -> Any:
    """The value of canonical bytes; raises Rejected when they are too long, malformed or not canonical."""
    if len(data) > limit:
        raise Rejected("too-large", f"{what} has {len(data)} bytes, {limit} are allowed")
    try:
        value = json.loads(data.decode("utf-8"), parse_float=_no_float, parse_constant=_no_float)
        again = encode(value)
    except (ValueError, RecursionError, Misuse) as error:
        raise Rejected("not-canonical", f"{what} is not canonical JSON: {error}") from None
    if again != data:
        raise Rejected("not-canonical", f"{what} does not re-encode to the same bytes")
    return value


def _no_float(text: str) -> Any:
    raise ValueError(f"number {text[:20]} is not an integer")


def _problem(value: Any, depth: int) -> str:
    """Why `value` has no canonical form, empty if it has one. Every document passes here, so the usual kinds come first."""
    if isinstance(value, str):
        return "" if value.isascii() else _string_problem(value)
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, int):
        return "" if -LIMIT <= value <= LIMIT else "an integer beyond 2**53-1"
    if depth > MAX_DEPTH:
        return f"nested deeper than {MAX_DEPTH}"
    if isinstance(value, dict):
        for key in value:
            if not _is_key(key):
                return f"key {repr(key)[:80]} is not printable ASCII"
        items: Iterable[Any] = value.values()
    elif isinstance(value, list | tuple):
        items = value
    else:
        return f"a {type(value).__name__}"
    for item in items:
        if type(item) is str and item.isascii():  # most of what there is: not worth a call
            continue
        if problem := _problem(item, depth + 1):
            return problem
    return ""


@lru_cache(4096)
def _is_key(key: Any) -> bool:
    return isinstance(key, str) and 0 < len(key) <= 128 and key.isascii() and key.isprintable()


def _string_problem(text: str) -> str:
    if any("\ud800" <= char <= "\udfff" for char in text):
        return "a lone surrogate"
    return "" if unicodedata.is_normalized("NFC", text) else "a string that is not NFC"
