"""Who may log in by an issuer's token (OpenID Connect), and as what: rules for claims whose signature is verified already."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NoReturn
from urllib.parse import urlsplit

from edgeops.wire.errors import Misuse
from edgeops.wire.keys import sha256

from .tokens import ROLES, Caller

LEEWAY_S = 30
# `:` stands in no name of an API token: whoever logs in is never taken for one.
WHO = "oidc:"
PLAIN = re.compile(r"[A-Za-z0-9._@|+/=-]{1,59}")
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
# Claims of tokens that are no proof of a bearer: logout and event tokens; tokens bound to a key that was not shown.
FOREIGN = ("events", "cnf")
# Issuers call the obtaining client and the kind of a token by these names; a refresh token of some has our audience too.
CLIENT, KIND = ("azp", "client_id", "cid", "appid"), ("token_use", "token_type", "typ")
KINDS = ("access", "id", "bearer", "access_token", "id_token", "jwt", "at+jwt")


@dataclass(frozen=True, slots=True)
class Rule:
    """Who has `value` in `claim` has `role`."""

    claim: str
    value: str
    role: str


@dataclass(frozen=True, slots=True)
class Login:
    """Whose tokens are accepted, made for whom, obtained by which clients, and what makes whom what; nobody's without an issuer."""

    issuer: str = ""
    audience: str = ""
    clients: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The roles as rules; raises Misuse("setting-invalid")."""
        return tuple(_rule(text) for text in self.roles)

    def __str__(self) -> str:
        """As an inline table of TOML."""
        given = {name: value for name in NAMES if (value := getattr(self, name))}
        return "{" + ", ".join(f"{name} = {json.dumps(value)}" for name, value in given.items()) + "}"


NAMES = tuple(one.name for one in fields(Login))


def login_from(raw: Any) -> Login:
    """The setting from its table; raises Misuse("setting-invalid")."""
    if not isinstance(raw, Mapping) or (odd := [name for name in raw if name not in NAMES]):
        _invalid(f"oidc is a table of {', '.join(NAMES)}" + (f", not of {odd[0]!r}" if isinstance(raw, Mapping) else ""))
    values: dict[str, Any] = {}
    for name, value in raw.items():
        many = name in ("clients", "roles")
        if not (isinstance(value, list | tuple) and all(isinstance(one, str) for one in value) if many else isinstance(value, str)):
            _invalid(f"oidc.{name} must be {'a list of texts' if many else 'a text'}, not {value!r}")
        values[name] = tuple(value) if many else value
    login = Login(**values)
    if login != Login():
        _check_url(login.issuer)
        if missing := [name for name in NAMES if not getattr(login, name)]:
            _invalid(f"oidc.{missing[0]} must be given too, or anybody with a token of {login.issuer} could come in")
    _ = login.rules
    return login


def accept(login: Login, claims: Mapping[str, Any], now: int) -> Caller:
    """Who the bearer of these verified claims is; raises Misuse("oidc-issuer" | "oidc-audience" | … | "oidc-role")."""
    if claims.get("iss") != login.issuer:
        raise Misuse("oidc-issuer", "the token is from another issuer than this manager's oidc.issuer")
    if login.audience not in (audiences := _texts(claims.get("aud"))):
        raise Misuse("oidc-audience", f"the token is made for others, not for {login.audience}; log in with `edgeops login`")
    _check_client(login, claims, len(audiences))
    _check_times(claims, now)
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject:
        raise Misuse("oidc-claims", "the token names nobody: it has no `sub`")
    held = [rule.role for rule in login.rules if rule.value in _texts(_at(claims, rule.claim))]
    if not held:
        raise Misuse("oidc-role", f"{who(subject)} has none of the roles in this manager's oidc.roles; ask an admin of the issuer")
    return Caller(who(subject), max(held, key=ROLES.index))


def who(subject: str) -> str:
    """The name of somebody who logs in, as the audit log has it: whole, or hashed where it is long or odd."""
    return WHO + (subject if PLAIN.fullmatch(subject) else "sha256:" + sha256(subject.encode("utf-8", "surrogatepass"))[:40])


def _check_client(login: Login, claims: Mapping[str, Any], audiences: int) -> None:
    """What another client of the same issuer obtained is not ours, even if it names us among others."""
    named = [claims[name] for name in CLIENT if name in claims]
    if any(client not in login.clients for client in named) or (audiences > 1 and not named):
        raise Misuse("oidc-client", "the token was obtained by another client than those in this manager's oidc.clients")
    if any(name in claims for name in FOREIGN) or any(str(claims.get(name, "id")).lower() not in KINDS for name in KIND):
        raise Misuse("oidc-kind", "the token is of a kind that does not prove its bearer")


def _check_times(claims: Mapping[str, Any], now: int) -> None:
    times = {name: claims[name] for name in ("exp", "iat", "nbf") if name in claims}
    if not {"exp", "iat"} <= times.keys() or not all(type(at) in (int, float) and 0 <= at < 2**53 for at in times.values()):
        raise Misuse("oidc-claims", "the token does not say from when and until when it holds")
    if times["exp"] <= now - LEEWAY_S:
        raise Misuse("oidc-expired", "the login has expired; log in again with `edgeops login`")
    if max(times["iat"], times.get("nbf", 0)) > now + LEEWAY_S:
        raise Misuse("oidc-early", "the token holds only later; are the clocks of issuer and manager right?")


def _at(claims: Mapping[str, Any], name: str) -> Any:
    """The claim of that name, else what the name's dots lead to, as in Keycloak's `realm_access.roles`."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _texts(value: Any) -> tuple[str, ...]:
    """A text or a list of texts; anything else is none."""
    if isinstance(value, list):
        return tuple(one for one in value if isinstance(one, str))
    return (value,) if isinstance(value, str) else ()


def _rule(text: str) -> Rule:
    parts = text.split()
    if len(parts) != 3 or parts[2] not in ROLES:
        _invalid(f"oidc.roles: {text!r} is not CLAIM VALUE ROLE, for example 'groups fleet-admins admin'")
    return Rule(*parts)


def _check_url(issuer: str) -> None:
    parts = urlsplit(issuer)
    secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
    if not secure or not parts.hostname or parts.username or parts.query or parts.fragment:
        _invalid(f"oidc.issuer = {issuer!r} must be an https address, as the issuer writes it in its tokens")


def _invalid(text: str) -> NoReturn:
    raise Misuse("setting-invalid", f"edgeops.toml: {text}")
