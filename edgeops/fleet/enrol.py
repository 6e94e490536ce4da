"""Enrolment: one-time tokens, spent once, known only by their hash.

Secrets and times come in as values; the clear secret is never kept. A device whose answer got lost may spend the same token
again with the same identity key and gets the same incarnation; anybody else is refused.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, replace
from typing import Literal

from edgeops.fleet.device import Device
from edgeops.wire.errors import Misuse

MIN_SECRET_BYTES = 16
DEFAULT_TTL_S = 86_400
MAX_TTL_S = 90 * 86_400
MAX_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Token:
    """One issued token; `incarnation` and `identity` say what it was spent on."""

    secret_hash: str
    issued_at: int
    expires_at: int
    status: Literal["open", "spent", "revoked"] = "open"
    spent_at: int | None = None
    incarnation: int = 0
    identity: str = ""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A device and its tokens, oldest first."""

    device: Device
    tokens: tuple[Token, ...] = ()


def hash_secret(secret: bytes) -> str:
    """The SHA-256 of a secret in hex: what is stored and compared. Plain hashing is enough for 256 random bits."""
    return hashlib.sha256(secret).hexdigest()


def issue(state: Enrolment, secret: bytes, now: int, ttl_s: int = DEFAULT_TTL_S) -> Enrolment:
    """Add a token and withdraw the open ones. Raises `Misuse("device-revoked" | "token-weak" | "token-ttl-invalid")`."""
    if not state.device.is_welcome:
        raise _unwelcome(state.device)
    if len(secret) < MIN_SECRET_BYTES:
        raise Misuse("token-weak", f"the secret has {len(secret)} bytes: use 32 random bytes, at least {MIN_SECRET_BYTES}")
    if not 0 < ttl_s <= MAX_TTL_S:
        raise Misuse("token-ttl-invalid", f"a token of {ttl_s} s: choose 1 s to {MAX_TTL_S // 86_400} days")
    fresh = Token(secret_hash=hash_secret(secret), issued_at=now, expires_at=now + ttl_s)
    older = revoke_tokens(state).tokens[-(MAX_TOKENS - 1) :]
    return replace(state, tokens=(*older, fresh))


def revoke_tokens(state: Enrolment) -> Enrolment:
    """Withdraw every open token; spent ones stay as they are."""
    return replace(state, tokens=tuple(replace(t, status="revoked") if t.status == "open" else t for t in state.tokens))


def redeem(state: Enrolment, token_secret_hash: str, now: int, identity: str = "") -> Enrolment:
    """Spend a token: the device is enrolled with the next incarnation and this identity (digest of its public key).

    Raises `Misuse` with `token-unknown`, `token-revoked`, `device-revoked`, `token-spent` or `token-expired`. Every token is
    compared, each in constant time.
    """
    device = state.device
    found = [hmac.compare_digest(t.secret_hash.encode(), token_secret_hash.encode()) for t in state.tokens]
    if not any(found):
        raise _refuse("token-unknown", device, "this token was never issued for it")
    at = found.index(True)
    token = state.tokens[at]
    if token.status == "revoked":
        raise _refuse("token-revoked", device, "this token was withdrawn")
    if not device.is_welcome:
        raise _unwelcome(device)
    if token.status == "spent":
        return _again(state, token, now, identity)
    if now >= token.expires_at:
        raise _refuse("token-expired", device, f"this token expired {now - token.expires_at} s ago")
    number = device.incarnation + 1
    spent = replace(token, status="spent", spent_at=now, incarnation=number, identity=identity)
    enrolled = replace(device, status="enrolled", incarnation=number, identity=identity)
    others = revoke_tokens(replace(state, tokens=(*state.tokens[:at], spent, *state.tokens[at + 1 :]))).tokens
    return Enrolment(enrolled, others)


def _again(state: Enrolment, token: Token, now: int, identity: str) -> Enrolment:
    same = identity != "" and hmac.compare_digest(token.identity.encode(), identity.encode())
    if same and token.incarnation == state.device.incarnation and now < token.expires_at:
        return state
    raise _refuse("token-spent", state.device, "this token has been used already")


def _refuse(reason: str, device: Device, why: str) -> Misuse:
    return Misuse(reason, f"device {device.id}: {why}; make a new one with `edgeops device register {device.id}`")


def _unwelcome(device: Device) -> Misuse:
    return Misuse("device-revoked", f"device {device.id} is {device.status}: register it under another id or reinstate it first")
