"""How answers look: JSON for programs, tables and lines for people; colours on a terminal only."""

import contextlib
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..shell.logline import printable

COLOURS = {"ok": 32, "warn": 33, "fail": 31, "error": 31}
UNITS = ((86_400, "day"), (3600, "hour"), (60, "minute"))


def say(text: str = "") -> None:
    """One line on standard output; a full disk or a closed pipe does not change the exit code."""
    with contextlib.suppress(OSError, ValueError):
        print(text, flush=True)


def answer(data: Mapping[str, Any]) -> None:
    """One JSON object, in ASCII: a terminal finds nothing in it to obey."""
    say(json.dumps(data))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table; the last column is as wide as it likes. Words of COLOURS are coloured."""
    every = [columns, *([printable(cell) or "–" for cell in row] for row in rows)]
    widths = [max(len(row[at]) for row in every) for at in range(len(columns))]
    for row in every:
        cells = [_coloured(cell, f"{cell:<{width}}") for cell, width in zip(row, widths, strict=True)]
        say("  ".join(cells).rstrip())


def pairs(rows: Mapping[str, str]) -> None:
    """Names and values, one a line; what has no value is left out."""
    width = max(map(len, rows))
    for name, value in rows.items():
        if value:
            say(f"{name:<{width}}  {printable(value)}")


def _coloured(word: str, text: str) -> str:
    return f"\x1b[{COLOURS[word]}m{text}\x1b[0m" if word in COLOURS and sys.stdout.isatty() else text


def size(count: int) -> str:
    """Bytes as people read them."""
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << power:
            return f"{count / (1 << power):.1f} {unit}"
    return f"{count} B"


def when(seconds: float) -> str:
    """Unix seconds as UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def now() -> float:
    """Unix seconds by the device's own clock."""
    return time.time()


def ago(since: float) -> str:
    """How long ago that was by the device's clock, in the largest unit that says something."""
    return span(now() - since)


def span(seconds: float) -> str:
    """A length of time in the largest unit that says something."""
    for length, unit in UNITS:
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{max(0, int(seconds))} s"
