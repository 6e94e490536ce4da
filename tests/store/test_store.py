"""The database: migrated, one writer at a time, nothing half done."""

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, select

from edgeops.store import Store, open_store, outbox, rows
from edgeops.store.database import migrate
from edgeops.store.tables import devices, marks, metadata, tokens
from edgeops.wire.errors import Misuse


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A new database."""
    return open_store(tmp_path / "edgeops.db")


def test_models_and_migrations_agree(store: Store) -> None:
    """A database made by the migrations has exactly the tables, columns and indexes of the models."""
    with store.write() as tx:
        assert compare_metadata(MigrationContext.configure(tx), metadata) == []


def test_a_missing_column_would_be_seen(tmp_path: Path) -> None:
    """The comparison above does notice a model that the migration does not know."""
    engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    migrate(engine)
    with engine.connect() as tx:
        tx.exec_driver_sql("ALTER TABLE marks DROP COLUMN value")
        assert compare_metadata(MigrationContext.configure(tx), metadata) != []
    engine.dispose()


def test_opening_twice_keeps_what_is_there(store: Store, tmp_path: Path) -> None:
    """Migrating an up-to-date database changes nothing."""
    with store.write() as tx:
        rows.put(tx, marks, name="a", value=1)
    store.close()
    again = open_store(tmp_path / "edgeops.db")
    with again.read() as tx:
        assert rows.get(tx, marks, name="a") == {"name": "a", "value": 1}
    again.close()


def test_the_database_is_private_and_in_wal_mode(store: Store, tmp_path: Path) -> None:
    """Only the owner may read the file, and readers do not wait for writers."""
    assert (tmp_path / "edgeops.db").stat().st_mode & 0o777 == 0o600
    with store.read() as tx:
        assert tx.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert tx.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """Garbage is a Misuse that names the file."""
    (tmp_path / "x.db").write_bytes(b"not a database" * 100)
    with pytest.raises(Misuse, match=r"x\.db"):
        open_store(tmp_path / "x.db")


def test_an_exception_undoes_state_and_letters_alike(store: Store) -> None:
    """State and outbox are one transaction."""

    def half(tx: Connection) -> None:
        rows.put(tx, marks, name="a", value=1)
        outbox.post(tx, "e/1/x", b"payload")
        raise RuntimeError

    with pytest.raises(RuntimeError), store.write() as tx:
        half(tx)
    with store.read() as tx:
        assert rows.get(tx, marks, name="a") is None
        assert outbox.waiting(tx, 10) == []
    assert not store.committed.is_set()


def test_two_writers_take_turns(store: Store) -> None:
    """Read-modify-write from several threads loses nothing."""

    def add() -> None:
        for _ in range(25):
            with store.write() as tx:
                row = rows.get(tx, marks, name="n")
                rows.put(tx, marks, name="n", value=(row["value"] if row else 0) + 1)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as tx:
        assert rows.get(tx, marks, name="n") == {"name": "n", "value": 100}


def test_a_reader_sees_one_moment(store: Store) -> None:
    """What is committed during a read transaction is not seen by it."""
    with store.read() as reader:
        assert rows.find(reader, marks) == []
        with store.write() as writer:
            rows.put(writer, marks, name="a", value=1)
        assert rows.find(reader, marks) == []


def test_letters_leave_in_order_and_retained_ones_replace_each_other(store: Store) -> None:
    """Only the newest retained message of a topic is worth sending."""
    with store.write() as tx:
        outbox.post(tx, "a", b"1")
        outbox.post(tx, "b", b"old", retain=True)
        outbox.post(tx, "a", b"2")
        outbox.post(tx, "b", b"new", retain=True)
        found = outbox.waiting(tx, 10)
        assert [(letter.topic, letter.payload) for letter in found] == [("a", b"1"), ("a", b"2"), ("b", b"new")]
        outbox.sent(tx, [letter.id for letter in found[:2]])
        assert [letter.payload for letter in outbox.waiting(tx, 10)] == [b"new"]


def test_numbers_of_letters_are_never_used_again(store: Store) -> None:
    """An id of a sent letter cannot come back and remove another one."""
    with store.write() as tx:
        outbox.post(tx, "a", b"1")
        first = outbox.waiting(tx, 1)[0].id
        outbox.sent(tx, [first])
        outbox.post(tx, "a", b"2")
        assert outbox.waiting(tx, 1)[0].id > first


def test_rows_are_put_added_and_changed(store: Store) -> None:
    """put replaces given columns, add never replaces, change counts what it hit."""
    with store.write() as tx:
        assert rows.add(tx, tokens, name="a", hash="1", role="viewer", created=1)
        assert not rows.add(tx, tokens, name="a", hash="2", role="viewer", created=1)
        rows.put(tx, tokens, name="a", hash="3", role="admin", created=1)
        found = rows.get(tx, tokens, name="a")
        assert found and (found["hash"], found["role"], found["last_used"]) == ("3", "admin", None)
        assert rows.change(tx, tokens, {"name": "nobody"}, role="admin") == 0
        assert tx.execute(select(devices)).first() is None
