"""API tokens as admins speak of them: making, listing, withdrawing."""

from collections.abc import Mapping
from typing import Any

from edgeops.store import audit, rows
from edgeops.store.tables import tokens
from edgeops.wire.errors import Misuse

from .hub import Hub
from .tokens import issue


def new(hub: Hub, who: str, name: str, role: str, ttl_s: int | None = None) -> dict[str, Any]:
    """Make a token for somebody; its text is in the answer and nowhere else. Raises as `issue`."""
    now = hub.now()
    with hub.store.write() as tx:
        text = issue(tx, name, role, now, ttl_s)
        audit.write(tx, now, who, "token-new", name, role)
        return {**_view(rows.get(tx, tokens, name=name) or {}), "token": text}


def listed(hub: Hub) -> list[dict[str, Any]]:
    """All tokens by name, without their text, which nobody has kept."""
    with hub.store.read() as tx:
        return [_view(row) for row in rows.find(tx, tokens)]


def withdraw(hub: Hub, who: str, name: str) -> dict[str, Any]:
    """Make a token worthless at once; raises Misuse("unknown-token" | "last-admin")."""
    now = hub.now()
    with hub.store.write() as tx:
        row = rows.get(tx, tokens, name=name)
        if row is None:
            raise Misuse("unknown-token", f"there is no token {name[:64]!r}; `edgeops token list` shows all")
        others = [one for one in rows.find(tx, tokens, role="admin") if one["name"] != name]
        if row["role"] == "admin" and not any(one["expires"] is None or one["expires"] > now for one in others):
            raise Misuse("last-admin", f"{name} is the last token of an admin; make another first with `edgeops token new`")
        rows.drop(tx, tokens, name=name)
        audit.write(tx, now, who, "token-withdraw", name)
        return _view(row)


def _view(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("name", "role", "created", "expires", "last_used")}
