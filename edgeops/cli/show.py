"""How answers look to a person: tables, ages, sizes. Plain text when piped, colours on a terminal."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from . import signals

PIPED_WIDTH = 240
GOOD = {"online", "finished", "committed", "pass", "ok", "running", "active"}
BAD = {"halted", "aborted", "failed", "fail", "revoked", "gone", "offline", "alarm", "rolled_back", "refused"}


def console(stderr: bool = False) -> Console:
    """A console on stdout or stderr; piped output is wide, so that nothing is cut."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else PIPED_WIDTH, highlight=False, soft_wrap=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> Table:
    """A table of any cells; words that mean good or bad are coloured."""
    drawn = Table(*columns, box=SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False, show_edge=False)
    for row in rows:
        drawn.add_row(*(cell(value) for value in row))
    return drawn


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str = "nothing yet") -> None:
    """Print a table, or `empty` when it has no rows."""
    found = list(rows)
    render(table(columns, found) if found else Text(empty))


def render(thing: RenderableType) -> None:
    """Print anything rich can draw on stdout."""
    console().print(thing)


def pairs(data: Mapping[str, Any], times: Sequence[str] = ()) -> None:
    """Print an object as two columns; `times` are fields in Unix seconds."""
    drawn = Table(box=None, show_header=False, pad_edge=False)
    for name, value in data.items():
        drawn.add_row(Text(name, style="bold"), cell(when(value) if name in times else value))
    render(drawn)


def cell(value: object) -> Text:
    """One value as text."""
    if isinstance(value, Text):
        return value
    empty = value is None or value in ("", {}, [], ())
    text = "–" if empty else "yes" if value is True else "no" if value is False else plain(value)
    word = text.split(" ", 1)[0].lower()
    return Text(text, style="green" if word in GOOD else "red" if word in BAD else "")


def plain(value: object) -> str:
    """Text of a value; mappings as k=v."""
    if isinstance(value, Mapping):
        return " ".join(f"{line(str(name))}={plain(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else line(str(value))


def safe(text: str) -> str:
    """`text` without anything a terminal would obey: what devices say of themselves is shown to people. Line breaks stay."""
    return "".join(char if char.isprintable() or char == "\n" else f"\\x{ord(char):02x}" for char in text)


def line(text: str) -> str:
    """The same on one line: a value that began a new one could pass for another row."""
    return safe(text).replace("\n", "\\n")


def encoded(data: object) -> str:
    """`data` as JSON, in which a terminal finds nothing to obey either: JSON itself lets through what is above ASCII."""
    text = json.dumps(data, ensure_ascii=False, default=str)
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def size(count: int | None) -> str:
    """Bytes in KiB or MiB."""
    if count is None:
        return "–"
    return f"{count} B" if count < 1024 else f"{count / 1024:.1f} KiB" if count < 1 << 20 else f"{count / (1 << 20):.2f} MiB"


def micros(value: float | None) -> str:
    """Microseconds in the unit one reads easily."""
    if value is None:
        return "–"
    return f"{value:.0f} µs" if value < 1000 else f"{value / 1000:.2f} ms" if value < 1_000_000 else f"{value / 1e6:.2f} s"


def when(seconds: float | None) -> str:
    """Unix seconds as UTC."""
    return "–" if not seconds else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def bar() -> Progress:
    """A progress bar on stderr: how many of how many."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    screen = console(stderr=True)
    return Progress(*columns, console=screen, disable=not screen.is_terminal)


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Progress of unknown length on stderr: each step with a spinner on a terminal, one line each otherwise."""
    screen = console(stderr=True)
    if not screen.is_terminal:

        def tell(step: str) -> None:
            signals.check()
            print(f"… {step}", file=sys.stderr, flush=True)

        yield tell
        return
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=screen) as progress:
        current: list[Any] = []

        def begin(step: str) -> None:
            signals.check()
            if current:
                progress.update(current[-1], total=1, completed=1)
            current.append(progress.add_task(step, total=None))

        yield begin
        if current:
            progress.update(current[-1], total=1, completed=1)
