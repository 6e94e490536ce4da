"""Opening the database: SQLite in WAL mode, migrated to the newest revision, one writer at a time.

A commit is on the disk when it returns (synchronous=FULL), because commands are carried out right after it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, OperationalError

from edgeops.wire.errors import Misuse, Unfit

from .blobs import DISK_FULL

MIGRATIONS = Path(__file__).with_name("migrations")
BUSY_MS = 10_000


class Store:
    """The open database. `write` and `read` give a connection inside one transaction; `committed` is set after every commit."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.committed = threading.Event()
        self._writing = threading.Lock()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction, alone among writers; committed on leaving, rolled back on an exception. Raises Unfit("disk-full")."""
        with self._writing, self.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.commit()
            except OperationalError as error:
                connection.rollback()
                if "disk is full" in str(error.orig):
                    raise Unfit("disk-full", DISK_FULL) from error
                raise
            except BaseException:
                connection.rollback()
                raise
        self.committed.set()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view of what was committed when it was first read."""
        with self.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            try:
                yield connection
            finally:
                connection.rollback()

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def open_store(path: Path) -> Store:
    """Open (or create) the database at `path` and migrate it; raises Misuse("database") when it cannot be used."""
    # Readers are many (each API request is a thread), and none may wait for another's connection.
    engine = create_engine(
        f"sqlite:///{path}", connect_args={"check_same_thread": False, "timeout": BUSY_MS / 1000}, max_overflow=-1
    )
    event.listen(engine, "connect", _prepare)
    try:
        migrate(engine)
    except Exception as error:
        engine.dispose()
        raise Misuse("database", f"the database {path} cannot be opened or migrated: {str(error).splitlines()[0]}") from error
    path.chmod(0o600)
    return Store(engine)


def peek(path: Path) -> Store:
    """Open a database only to look at it: nothing is migrated or written, not even beside it; raises Misuse("database")."""
    if not path.is_file():
        raise Misuse("database", f"there is no database {path}")
    # Where no write-ahead log lies beside it nobody is at work on it, and it may lie where nothing can be written.
    how = "mode=ro" if path.with_name(path.name + "-wal").exists() else "immutable=1"
    engine = create_engine(f"sqlite:///file:{quote(str(path.resolve()))}?{how}&uri=true", max_overflow=-1)
    event.listen(engine, "connect", _take_charge)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT 1 FROM audit LIMIT 1")
    except DatabaseError as error:
        engine.dispose()
        raise Misuse("database", f"{path} cannot be read as a manager's database: {error.orig!s}") from None
    return Store(engine)


def migrate(engine: Engine) -> None:
    """Bring the schema to the newest revision."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def _take_charge(raw: Any, _record: Any) -> None:
    # Whoever put bytes that are no text into the audit log is to be named by the log, not to keep it from being read.
    raw.text_factory = lambda data: data.decode("utf-8", "replace")
    # We begin transactions ourselves: sqlite3 would otherwise begin late and deferred, and two writers could deadlock.
    raw.isolation_level = None


def _prepare(raw: Any, record: Any) -> None:
    _take_charge(raw, record)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_MS}", "foreign_keys=ON"):
        raw.execute(f"PRAGMA {pragma}").close()
