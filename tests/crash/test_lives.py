"""Trust under power cuts: nothing acknowledged is lost, everybody comes back, seeded bugs are caught."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeops_agent.shell import credentials, disk, intake, upkeep
from edgeops_agent.shell.files import Files
from edgeops_agent.shell.identity import Paths

from . import lives
from .desk import Violation
from .lives import Office, run
from .power import FATES

SOME = 4


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """One manager for all lives; what is tested here is not its disk."""
    with lives.an_office(tmp_path_factory.mktemp("office")) as made:
        yield made


def explore(office: Office, cuts: list[tuple[tuple[int, ...], str]], deaf: str = "", most: int = 10**9) -> list[str]:
    """Violations with these cuts; stops after `most`."""
    violations = list[str]()
    for cut, fate in cuts:
        try:
            run(office, cut, fate, deaf)
        except Violation as error:
            violations.append(f"cut {cut}, {fate}: {error}")
            if len(violations) >= most:
                break
    return violations


def test_no_cut_loses_trust(office: Office, tell: Callable[[str], None]) -> None:
    """Every fourth of the single cuts and of the pairs of cuts; `make crash` takes all."""
    every = lives.cuts(office)
    violations = explore(office, every[::SOME])
    tell(f"trust cuts {len(every[::SOME])} of {len(every)}, violations {len(violations)}; seeded bugs, a test each: {len(BUGS)}")
    assert not violations, violations[:5]
    assert len(every) > 450


def in_place(files: Files, path: Path, data: bytes) -> None:
    """Write where the old bytes are."""
    files.write(path, data)
    files.sync(path)


def pair_in_place(paths: Paths, pair: credentials.Pair) -> None:
    """The new pair over the old one."""
    in_place(paths.files, paths.pair, pair.pem)


def two_files(paths: Paths, pair: credentials.Pair) -> None:
    """Key first, certificate then."""
    for name, data in (("tls.key", pair.pem), ("tls.crt", pair.pem)):
        disk.write_whole(paths.root / name, data, files=paths.files)
    paths.files.remove(paths.pair)


def away_first(paths: Any) -> None:
    """Make room before the new one is there."""
    pair = credentials.read_pair(paths)
    for path in (paths.certificate, paths.tls_key):
        paths.files.remove(path)
    if pair and not paths.has(paths.pair):
        credentials.keep_pair(paths, pair)


def one_copy(real: Callable[..., None]) -> Callable[..., None]:
    """Always overwrite the same copy of the record."""

    def save(folder: disk.StateFolder, record: Any) -> None:
        folder._next = "a"
        real(folder, record)

    return save


def emptied(folder: disk.StateFolder) -> None:
    """Lay the copies out anew at every start."""
    for name in ("a", "b"):
        in_place(folder.files, folder.root / f"record.{name}", bytes(disk.COPY_BYTES))


def act_first(real: Callable[..., Any]) -> Callable[..., Any]:
    """Tell others of the new sites before the record is saved."""

    def take(self: intake.Intake, bundle: Any, by_site: int = 0) -> Any:
        store, self._store = self._store, lambda record: (setattr(self._ledger, "record", record), self._moved())  # type: ignore[assignment]
        try:
            received = real(self, bundle, by_site)
        finally:
            self._store = store
        store(received.record)
        return received

    return take


def record_first(patch: pytest.MonkeyPatch) -> None:
    """Enrolment is over before certificate and site are there."""
    waiting: list[tuple[Any, ...]] = []
    save, put = disk.StateFolder.save, disk.StateFolder.put_whole

    def late(folder: disk.StateFolder, record: Any) -> None:
        save(folder, record)
        while waiting:
            put(folder, *waiting.pop(0))

    def write(folder: disk.StateFolder, path: Path, *rest: Any) -> None:
        waiting.append((path, *rest)) if path.name == "site.json" else put(folder, path, *rest)

    patch.setattr(disk.StateFolder, "put_whole", write)
    patch.setattr(disk.StateFolder, "save", late)


def unkept(patch: pytest.MonkeyPatch) -> None:
    """The record names the site, then the site is kept."""
    real = intake.Intake.take

    def take(self: intake.Intake, bundle: Any, by_site: int = 0) -> Any:
        received = real(self, bundle, by_site)
        if received.site:
            intake.keep_site(self._folder, received.site)
        return received

    patch.setattr(intake.Intake, "take", take)
    patch.setattr(intake.Intake, "_keep", lambda *_: None)


def bug(where: Any, name: str, make: Callable[..., Any], wraps: bool = False) -> Callable[[pytest.MonkeyPatch], None]:
    """A bug that replaces one function."""
    return lambda patch: patch.setattr(where, name, make(getattr(where, name)) if wraps else make)


BUGS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str, str]] = {
    "the pair is written in place": (bug(upkeep, "keep_pair", pair_in_place), "renew", ""),
    "the pair is two files again": (bug(upkeep, "keep_pair", two_files), "renew", ""),
    "the two files go before the one is there": (bug(lives, "join_files", away_first), "start", ""),
    "the record has one copy": (bug(disk.StateFolder, "save", one_copy, wraps=True), "renew", ""),
    "a start empties the record": (bug(disk.StateFolder, "prepare", emptied), "renew", ""),
    "act, then save": (bug(intake.Intake, "take", act_first, wraps=True), "move", ""),
    "the record names a site that is not kept yet": (unkept, "move", ""),
    "enrolment ends before the site is there": (record_first, "enrol", ""),
    "files are not synced": (lambda _: None, "enrol", "files"),
    "folders are not synced": (lambda _: None, "enrol", "folders"),
}
"""Bugs: how to put them in, the part of a life they are looked for in, and what they make the disk deaf to."""


@pytest.mark.parametrize("name", BUGS)
def test_seeded_bug_is_caught(office: Office, name: str) -> None:
    """The same search finds this bug."""
    seed, part, deaf = BUGS[name]
    calls = run(office, (), "kept").calls
    with pytest.MonkeyPatch.context() as patch:
        seed(patch)
        places = [(cut,) for cut in range(calls[part] + 1, calls["end"] + 1)]
        violations = explore(office, list(itertools.product(places, FATES)), deaf, most=1)
    assert violations, f"not caught: {name}"
