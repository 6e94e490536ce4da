"""API tokens: 256 random bits, kept only as their hash, with one of three roles."""

import secrets
from dataclasses import dataclass

from sqlalchemy import Connection

from edgeops.store import rows
from edgeops.store.tables import tokens
from edgeops.wire.errors import Misuse
from edgeops.wire.fields import ID
from edgeops.wire.keys import sha256

ROLES = ("viewer", "operator", "admin")
PREFIX = "edgeops_"
TOUCH_S = 60


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and with which role."""

    name: str
    role: str

    def may(self, role: str) -> bool:
        """Whether this caller has `role` or a higher one."""
        return ROLES.index(self.role) >= ROLES.index(role)


def issue(tx: Connection, name: str, role: str, now: int, ttl_s: int | None = None) -> str:
    """A new token; it is shown once. Raises Misuse("token-name" | "token-role" | "token-exists")."""
    if not ID.fullmatch(name):
        raise Misuse("token-name", f"token name {name!r} must match {ID.pattern}")
    if role not in ROLES:
        raise Misuse("token-role", f"there is no role {role!r}; choose one of {', '.join(ROLES)}")
    text = PREFIX + secrets.token_urlsafe(32)
    row = {"hash": sha256(text.encode()), "role": role, "created": now, "expires": None if ttl_s is None else now + ttl_s}
    if not rows.add(tx, tokens, name=name, **row):
        raise Misuse("token-exists", f"there is a token {name!r} already; choose another name")
    return text


def check(tx: Connection, text: str, now: int) -> tuple[Caller, bool]:
    """Who presents this token, and whether its last use should be noted; raises Misuse("token-unknown" | "token-expired")."""
    # The lookup is by a 256-bit hash of the secret, so its timing tells nothing about the secret.
    row = rows.get(tx, tokens, hash=sha256(text.encode()))
    if row is None:
        raise Misuse("token-unknown", "this API token is not known here; an admin makes one with `edgeops token new`")
    if row["expires"] is not None and row["expires"] <= now:
        raise Misuse("token-expired", f"the API token {row['name']} has expired; ask an admin for a new one")
    return Caller(row["name"], row["role"]), (row["last_used"] or 0) + TOUCH_S <= now


def touch(tx: Connection, name: str, now: int) -> None:
    """Note the last use."""
    rows.change(tx, tokens, {"name": name}, last_used=now)
