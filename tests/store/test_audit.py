"""The audit log in the database: numbered without gaps, paged, walked in bounded memory, changed by nobody unnoticed."""

import tracemalloc
from pathlib import Path

import pytest
from sqlalchemy import text, update

from edgeops.store import Store, audit, open_store, peek
from edgeops.store.audit import Wanted
from edgeops.store.tables import audit as table
from edgeops.wire.chain import FIRST, check_chain
from edgeops.wire.errors import Misuse


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A new database with seven entries."""
    made = open_store(tmp_path / "edgeops.db")
    with made.write() as tx:
        assert audit.last(tx) == (0, FIRST)
        for number in range(1, 8):
            audit.write(tx, 100 * number, "anna" if number % 2 else "bob", "act", f"thing-{number}")
    return made


def numbers(store: Store, most: int = 100, **wanted: object) -> list[int]:
    """The numbers of a page."""
    with store.read() as tx:
        return [entry["number"] for entry in audit.page(tx, most, Wanted(**wanted))]  # type: ignore[arg-type]


def broken(store: Store) -> tuple[str, int] | None:
    """What verifying finds."""
    with store.read() as tx:
        found = check_chain(audit.walk(tx), []).finding
    return (found.reason, found.entry) if found else None


def test_pages(store: Store) -> None:
    """Newest last; backwards with `before`, forwards with `after`, by time, by name, by deed."""
    assert numbers(store) == [1, 2, 3, 4, 5, 6, 7]
    assert numbers(store, 2) == [6, 7]
    assert numbers(store, 2, before=6) == [4, 5]
    assert numbers(store, 2, after=0) == [1, 2]
    assert numbers(store, 9, after=5) == [6, 7]
    assert numbers(store, since=500) == [5, 6, 7]
    assert numbers(store, who="bob") == [2, 4, 6]
    assert numbers(store, 1, who="bob", before=6) == [4]
    assert numbers(store, action="other") == []


@pytest.mark.parametrize("column", ["who", "action", "subject", "detail", "at", "previous", "digest"])
def test_any_changed_column_is_found(store: Store, column: str) -> None:
    """Whatever is changed in a row, that row is named."""
    assert broken(store) is None
    with store.write() as tx:
        tx.execute(update(table).where(table.c.id == 4).values({column: 7 if column == "at" else "x"}))
    assert broken(store) == ("audit-altered", 4)


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("DELETE FROM audit WHERE id = 4", ("audit-missing", 4)), ("DELETE FROM audit WHERE id = 1", ("audit-missing", 1)),
        ("UPDATE audit SET id = -1 WHERE id = 4", ("audit-inserted", -1)), ("UPDATE audit SET id = id + 10", ("audit-missing", 1)),
        ("UPDATE audit SET at = 'soon' WHERE id = 4", ("audit-altered", 4)),
        ("UPDATE audit SET at = 1.5 WHERE id = 4", ("audit-altered", 4)),
        ("UPDATE audit SET detail = x'ff' WHERE id = 4", ("audit-altered", 4)),
        ("UPDATE audit SET detail = CAST(x'ff' AS TEXT) WHERE id = 4", ("audit-altered", 4)),
    ],
)  # fmt: skip
def test_what_sql_can_do(store: Store, statement: str, found: tuple[str, int]) -> None:
    """Removed rows, moved numbers, values of another kind, text that is none: named, never a crash."""
    with store.write() as tx:
        tx.execute(text(statement))
    assert broken(store) == found


def test_an_odd_name_does_not_keep_a_deed_out(store: Store) -> None:
    """Text that canonical JSON cannot hold is made to fit, and the log still hangs together."""
    with store.write() as tx:
        audit.write(tx, 1, "Ame\u0301lie", "act", "half a \ud800 character")
    assert broken(store) is None
    with store.read() as tx:
        assert audit.page(tx, 1)[0]["who"] == "Am\u00e9lie"


def test_numbers_go_on_after_the_last(store: Store) -> None:
    """A rolled back entry leaves no gap."""
    with pytest.raises(RuntimeError), store.write() as tx:
        audit.write(tx, 1, "me", "act", "x")
        raise RuntimeError
    with store.write() as tx:
        audit.write(tx, 1, "me", "act", "x")
    assert numbers(store)[-1] == 8
    assert broken(store) is None


def test_peeking_changes_nothing(store: Store, tmp_path: Path) -> None:
    """A copy can be looked at where nothing may be written; something else than a database is refused by name."""
    store.close()
    path = tmp_path / "edgeops.db"
    before = path.read_bytes()
    seen = peek(path)
    assert broken(seen) is None
    seen.close()
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["edgeops.db"]
    (tmp_path / "x.db").write_bytes(b"no database" * 1000)
    for other in (tmp_path / "x.db", tmp_path / "none.db"):
        with pytest.raises(Misuse, match=other.name):
            peek(other)


def test_peeking_at_a_manager_at_work(store: Store, tmp_path: Path) -> None:
    """What is committed but only in the write-ahead log is seen too."""
    with store.write() as tx:
        audit.write(tx, 1, "me", "act", "newest")
    seen = peek(tmp_path / "edgeops.db")
    assert numbers(seen)[-1] == 8
    seen.close()


def test_a_long_log_is_walked_in_little_memory(tmp_path: Path) -> None:
    """Five thousand entries of 4 kB are 20 MB; the walk holds a thousand of them."""
    store = open_store(tmp_path / "long.db")
    with store.write() as tx:
        for number in range(5_000):
            audit.write(tx, number, "me", "act", "x", "y" * 4_000)
    with store.read() as tx:
        tracemalloc.start()
        verdict = check_chain(audit.walk(tx), [])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (verdict.entries, verdict.finding) == (5_000, None)
    assert peak < 10_000_000
    store.close()
