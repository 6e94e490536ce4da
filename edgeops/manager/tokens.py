"""API tokens: `edgeops_<id>_<256 random bits>`, kept only as their hash, with one of three roles."""

import hmac
import re
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
# Who does what nobody asked for, in the audit log: no person may be called so.
RESERVED = ("documents", "engine", "ingest", "manager", "settings", "setup")
# One form, all of it fixed, so that secret scanners find a token in any text.
FORM = re.compile(rf"{PREFIX}([0-9a-f]{{12}})_[0-9a-f]{{64}}")
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
        raise Misuse("token-name", f"token name {name[:80]!r} must match {ID.pattern}")
    if name in RESERVED:
        raise Misuse("token-name", f"{name!r} stands for the manager itself in the audit log; choose another name")
    if role not in ROLES:
        raise Misuse("token-role", f"there is no role {role[:80]!r}; choose one of {', '.join(ROLES)}")
    public, expires = secrets.token_hex(6), None if ttl_s is None else now + ttl_s
    text = f"{PREFIX}{public}_{secrets.token_hex(32)}"
    row = {"public": public, "hash": sha256(text.encode()), "role": role, "created": now, "expires": expires}
    if not rows.add(tx, tokens, name=name, **row):
        raise Misuse("token-exists", f"there is a token {name!r} already; choose another name")
    return text


def check(tx: Connection, text: str, now: int) -> tuple[Caller, bool]:
    """Who presents this token, and whether its last use should be noted; raises Misuse("token-unknown" | "token-expired").

    Found by the part that is no secret; the whole is compared by its hash in constant time, whether or not there is such a token.
    """
    form = FORM.fullmatch(text)
    row = rows.get(tx, tokens, public=form[1]) if form else None
    known = hmac.compare_digest(row["hash"] if row else "0" * 64, sha256(text.encode("utf-8", "surrogateescape")))
    if row is None or not known:
        raise Misuse("token-unknown", "this API token is not known here; an admin makes one with `edgeops token new`")
    if row["expires"] is not None and row["expires"] <= now:
        raise Misuse("token-expired", f"the API token {row['name']} has expired; ask an admin for a new one")
    return Caller(row["name"], row["role"]), (row["last_used"] or 0) + TOUCH_S <= now


def touch(tx: Connection, name: str, now: int) -> None:
    """Note the last use."""
    rows.change(tx, tokens, {"name": name}, last_used=now)
