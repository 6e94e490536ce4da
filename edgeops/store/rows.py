"""Reading and writing rows: small typed doors to the tables, for use inside a transaction."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Table, and_, delete, select, update
from sqlalchemy.dialects.sqlite import insert

Row = Mapping[str, Any]


def get(tx: Connection, table: Table, **key: Any) -> Row | None:
    """The one row with these column values, None when there is none."""
    row = tx.execute(select(table).where(_match(table, key))).mappings().first()
    return None if row is None else dict(row)


def find(tx: Connection, table: Table, *, order: str | None = None, **key: Any) -> list[Row]:
    """All rows with these column values, by primary key or by `order`."""
    columns = [table.c[order]] if order else list(table.primary_key.columns)
    query = select(table).where(_match(table, key)).order_by(*columns)
    return [dict(row) for row in tx.execute(query).mappings()]


def put(tx: Connection, table: Table, **values: Any) -> None:
    """Insert a row; a row with the same primary key is replaced in the given columns."""
    names = {column.name for column in table.primary_key.columns}
    statement = insert(table).values(**values)
    rest = {name: statement.excluded[name] for name in values if name not in names}
    if rest:
        tx.execute(statement.on_conflict_do_update(index_elements=sorted(names), set_=rest))
    else:
        tx.execute(statement.on_conflict_do_nothing())


def add(tx: Connection, table: Table, **values: Any) -> bool:
    """Insert a row unless one with the same primary key exists; whether it was inserted."""
    return tx.execute(insert(table).values(**values).on_conflict_do_nothing()).rowcount == 1


def change(tx: Connection, table: Table, key: Mapping[str, Any], **values: Any) -> int:
    """Set columns of the rows that match `key`; how many there were."""
    return tx.execute(update(table).where(_match(table, key)).values(**values)).rowcount


def drop(tx: Connection, table: Table, **key: Any) -> int:
    """Delete the rows that match `key`; how many there were."""
    return tx.execute(delete(table).where(_match(table, key))).rowcount


def _match(table: Table, key: Mapping[str, Any]) -> Any:
    return and_(True, *(table.c[name] == value for name, value in key.items()))
