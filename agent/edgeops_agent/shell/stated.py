"""Facts that the device's owner states: `facts.d/*.json`, and programs in `facts.d` that print such JSON."""

import json
import re
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeops.wire.conditions import CONSENT, ONLINE, Fact
from edgeops.wire.errors import Misuse

from . import dropins
from .journal import say

NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
MOST_FACTS = 64
MOST_TEXT = 64
MOST_NUMBER = (1 << 53) - 1
MOST_VALID_S = 366 * 86_400
NOT_FOR_FILES = (CONSENT, ONLINE)
"""What only the agent itself can know."""
VALID_S = "valid_s"


@dataclass(frozen=True, slots=True)
class Stated:
    """What one file states, until a monotonic second."""

    facts: Mapping[str, Fact]
    until: float


class StatedFacts:
    """Reads facts folders; later folders, and later names in a folder, outweigh earlier ones. A bad file hides no other."""

    def __init__(
        self, folders: Sequence[Path], now: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time,
        log: Callable[[str, str, str], object] = say, timeout_s: float = dropins.TIMEOUT_S,
    ) -> None:  # fmt: skip
        self._folders, self._now, self._wall, self._log, self._timeout_s = folders, now, wall, log, timeout_s
        self._told: dict[Path, str] = {}
        self._seen: dict[Path, tuple[int, float]] = {}

    def read(self) -> tuple[Stated, ...]:
        """What all files state now, in rising weight; programs are run at the same time, each for TIMEOUT_S at most."""
        wrong: dict[Path, str] = {}
        paths = [path for folder in self._folders for path in self._entries(folder, wrong)]
        stated = _bounded(self._checked(paths, wrong), wrong)
        for path, why in wrong.items():
            if self._told.get(path) != why:
                self._log("facts", why, "warn")
        self._told, self._seen = wrong, {path: seen for path, seen in self._seen.items() if path in paths}
        return stated

    def _entries(self, folder: Path, wrong: dict[Path, str]) -> list[Path]:
        try:
            return dropins.entries(folder)
        except Misuse as error:
            wrong[folder] = error.message
            return []

    def _checked(self, paths: list[Path], wrong: dict[Path, str]) -> dict[Path, Stated]:
        if not paths:
            return {}
        with ThreadPoolExecutor(len(paths), thread_name_prefix="facts") as pool:
            asked = [(path, pool.submit(self._read_file if path.suffix == ".json" else self._run, path)) for path in paths]
        stated = {}
        for path, answer in asked:
            try:
                stated[path] = answer.result()
            except Misuse as error:
                wrong[path] = error.message
        return stated

    def _read_file(self, path: Path) -> Stated:
        data, status = dropins.read(path)
        facts, valid_s = parse(data, path)
        if valid_s is None:
            return Stated(facts, float("inf"))
        changed, first = self._seen.get(path, (0, 0.0))
        if changed != status.st_mtime_ns:
            first = self._now()
            self._seen[path] = (status.st_mtime_ns, first)
        # By the wall clock, and by the monotonic one: a file from the future, or a clock put back, must not keep facts alive.
        left = min(status.st_mtime + valid_s - self._wall(), first + valid_s - self._now())
        return Stated(facts, self._now() + left)

    def _run(self, path: Path) -> Stated:
        if not dropins.is_program(path):
            raise Misuse("unreadable", f"{path} is neither *.json nor a program; rename it or `chmod +x` it")
        began = self._now()
        ended = dropins.run([str(path)], seconds=self._timeout_s)
        if ended.code != 0:
            why = ended.why or f"it ended with {ended.code}"
            raise Misuse("bad-facts", f"{path} states nothing: {why}; {ended.last_line[:200]}")
        facts, valid_s = parse(ended.output, path)
        return Stated(facts, began + valid_s if valid_s else float("inf"))


def parse(data: bytes, path: Path) -> tuple[dict[str, Fact], int | None]:
    """(facts, seconds they are valid) of one flat JSON object of texts, whole numbers and booleans; raises Misuse("bad-facts")."""
    try:
        found = json.loads(data.decode(), object_pairs_hook=_once, parse_float=_no_float, parse_constant=_no_float)
    except (ValueError, RecursionError) as error:
        raise Misuse("bad-facts", f"{path}: {error}") from None
    if not isinstance(found, dict):
        raise Misuse("bad-facts", f"{path}: expected one JSON object")
    valid_s = found.pop(VALID_S, None)
    if valid_s is not None and (type(valid_s) is not int or not 1 <= valid_s <= MOST_VALID_S):
        raise Misuse("bad-facts", f"{path}: {VALID_S} is whole seconds from 1 to {MOST_VALID_S}")
    for name, value in found.items():
        if not NAME.fullmatch(name) or name in NOT_FOR_FILES:
            raise Misuse("bad-facts", f"{path}: no file can state {name[:40]!r}; names are {NAME.pattern}")
        if not _is_fact(value):
            wanted = f"true, false, a whole number or a text of at most {MOST_TEXT} characters in composed form (NFC)"
            raise Misuse("bad-facts", f"{path}: {name} must be {wanted}")
    return found, valid_s


def _is_fact(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= MOST_TEXT and value.isprintable() and unicodedata.is_normalized("NFC", value)
    return isinstance(value, bool) or (isinstance(value, int) and abs(value) <= MOST_NUMBER)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def _no_float(text: str) -> Any:
    raise ValueError(f"{text} is no whole number; choose a smaller unit, such as millivolts")


def _bounded(stated: Mapping[Path, Stated], wrong: dict[Path, str]) -> tuple[Stated, ...]:
    """What fits into MOST_FACTS names."""
    kept: list[Stated] = []
    names: set[str] = set()
    for path, one in stated.items():
        if len(names | one.facts.keys()) > MOST_FACTS:
            wrong[path] = f"{path} is left out: it would make more than {MOST_FACTS} facts"
            continue
        names |= one.facts.keys()
        kept.append(one)
    return tuple(kept)
