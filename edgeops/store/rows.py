"""Reading and writing rows: small typed doors to the tables, for use inside a transaction.

A statement is built once for each table and set of columns; building it anew costs more than SQLite takes to carry it out.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import Connection, Executable, Table, and_, bindparam, delete, null, select, update
from sqlalchemy.dialects.sqlite import insert

Row = Mapping[str, Any]
Names = tuple[tuple[str, bool], ...]  # each column, and whether its value is NULL, which no parameter equals


def get(tx: Connection, table: Table, **key: Any) -> Row | None:
    """The one row with these column values, None when there is none."""
    row = tx.execute(_select(table, _names(key), None), _values("k", key)).mappings().first()
    return None if row is None else dict(row)


def find(tx: Connection, table: Table, *, order: str | None = None, **key: Any) -> list[Row]:
    """All rows with these column values, by primary key or by `order`."""
    found = tx.execute(_select(table, _names(key), order or ""), _values("k", key))
    return [dict(row) for row in found.mappings()]


def put(tx: Connection, table: Table, **values: Any) -> None:
    """Insert a row; a row with the same primary key is replaced in the given columns."""
    tx.execute(_put(table, tuple(values)), values)


def add(tx: Connection, table: Table, **values: Any) -> bool:
    """Insert a row unless one with the same primary key exists; whether it was inserted."""
    return tx.execute(_add(table, tuple(values)), values).rowcount == 1


def change(tx: Connection, table: Table, key: Mapping[str, Any], **values: Any) -> int:
    """Set columns of the rows that match `key`; how many there were."""
    return tx.execute(_change(table, _names(key), tuple(values)), _values("k", key) | _values("v", values)).rowcount


def drop(tx: Connection, table: Table, **key: Any) -> int:
    """Delete the rows that match `key`; how many there were."""
    return tx.execute(_drop(table, _names(key)), _values("k", key)).rowcount


def _names(key: Mapping[str, Any]) -> Names:
    return tuple((name, value is None) for name, value in key.items())


def _values(prefix: str, given: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}_{name}": value for name, value in given.items() if prefix == "v" or value is not None}


@cache
def _select(table: Table, names: Names, order: str | None) -> Executable:
    query = select(table).where(_match(table, names))
    if order is None:
        return query
    return query.order_by(*([table.c[order]] if order else table.primary_key.columns))


@cache
def _put(table: Table, columns: tuple[str, ...]) -> Executable:
    names = {column.name for column in table.primary_key.columns}
    statement = insert(table).values({name: bindparam(name) for name in columns})
    rest = {name: statement.excluded[name] for name in columns if name not in names}
    if rest:
        return statement.on_conflict_do_update(index_elements=sorted(names), set_=rest)
    return statement.on_conflict_do_nothing()


@cache
def _add(table: Table, columns: tuple[str, ...]) -> Executable:
    return insert(table).values({name: bindparam(name) for name in columns}).on_conflict_do_nothing()


@cache
def _change(table: Table, names: Names, columns: tuple[str, ...]) -> Executable:
    return update(table).where(_match(table, names)).values({name: bindparam(f"v_{name}") for name in columns})


@cache
def _drop(table: Table, names: Names) -> Executable:
    return delete(table).where(_match(table, names))


def _match(table: Table, names: Names) -> Any:
    return and_(True, *(table.c[name] == (null() if empty else bindparam(f"k_{name}")) for name, empty in names))
