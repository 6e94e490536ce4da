"""Enrolment: who is given credentials, when an operator must say yes first, and what ends it.

A device proves itself by its one-time token, or by the identity key whose fingerprint the factory told us; a token stands for
the fingerprint from when an operator issues it. Secrets come in as hashes and keys in hex; that the identity key itself has signed
the request is checked before. All ways a proof can be wrong get one refusal, so that nobody learns which devices exist.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, replace
from typing import Literal

from edgeops.fleet.device import Standing
from edgeops.wire.errors import Misuse

DAY_S = 86_400
AGAIN_S = 3_600
MOST_RENEWALS = 4
MAX_TTL_S = 90 * DAY_S
REFUSED = (
    "this enrolment is refused: its token is unknown, withdrawn, spent or expired, or this identity key was never registered; "
    "an operator makes a new token with `edgeops device token ID`"
)
_NOTHING = "-"  # what no hash is equal to

Step = Literal["admitted", "again", "pending"]
Verdict = Literal["", "granted", "rejected"]


@dataclass(frozen=True, slots=True)
class Pending:
    """A request of one identity key (hex) that an operator must judge; `verdict` is empty until then."""

    kind: Literal["enrol", "renew"]
    identity: str
    since: int
    verdict: Verdict = ""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """How one device stands. Times are seconds; empty texts mean there is none. A spent token belongs to who spent it."""

    device: str
    status: Standing = "registered"
    incarnation: int = 0
    identity: str = ""
    fingerprint: str = ""
    token_hash: str = ""
    token_expires: int = 0
    token_spent: int | None = None
    approval: bool = False
    pending: Pending | None = None
    certificate_expires: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """What somebody presents: the identity key that signed the request (hex), and the hash of a token's secret."""

    identity: str
    secret_hash: str


def fingerprint_of(identity: str) -> str:
    """The SHA-256 of a raw identity key (hex) in hex: what a factory writes down."""
    return hashlib.sha256(bytes.fromhex(identity)).hexdigest()


def check_fingerprint(text: str) -> str:
    """A fingerprint as people write it, in our form; raises Misuse("fingerprint-invalid")."""
    plain = text.strip().replace(":", "").lower()
    if len(plain) != 64 or not set(plain) <= set("0123456789abcdef"):
        raise Misuse("fingerprint-invalid", f"fingerprint {text[:80]!r}: `edgeops-agent identity` prints one, 64 hex digits")
    return plain


def issue(state: Enrolment, secret_hash: str, now: int, ttl_s: int) -> Enrolment:
    """A new token, enough by itself: it makes an older one, a factory's fingerprint and whatever waits worthless; raises Misuse.

    A device that lost its files has lost its key; who may hold the key still, as whoever stole it, does not come in by it.
    """
    _alive(state)
    if not 0 < ttl_s <= MAX_TTL_S:
        raise Misuse("token-ttl-invalid", f"a token of {ttl_s} s: choose 1 s to {MAX_TTL_S // DAY_S} days")
    return replace(state, fingerprint="", token_hash=secret_hash, token_expires=now + ttl_s, token_spent=None, pending=None)


def enrol(state: Enrolment, ask: Ask, now: int) -> tuple[Enrolment, Step]:
    """Judge a request to enrol: admitted as the next incarnation, the same one again (its answer was lost), or to be approved.

    A key the factory named admits by itself once; a second time, as after a re-flash, an operator must say yes, since no one-time
    secret shows that the request is new. Raises Misuse("token-refused" | "enrolment-rejected").
    """
    if not _proven(state, ask, now):
        raise Misuse("token-refused", REFUSED)
    waiting = state.pending
    if waiting is not None and waiting.kind == "enrol" and waiting.identity == ask.identity:
        if waiting.verdict == "rejected":
            raise Misuse("enrolment-rejected", f"an operator has rejected {state.device}; ask for a new token")
        return (_admitted(state, ask, now), "admitted") if waiting.verdict else (state, "pending")
    if _asks_again(state, ask, now):
        return state, "again"
    if state.approval or (not state.token_hash and state.status == "enrolled"):
        spent = now if state.token_hash else state.token_spent
        return replace(state, token_spent=spent, pending=Pending("enrol", ask.identity, now)), "pending"
    return _admitted(state, ask, now), "admitted"


def renew(state: Enrolment, lately: int, now: int, late_s: int) -> tuple[Enrolment, Step]:
    """Judge a request, signed by the identity key, for a new certificate; `lately` counts those renewed within a day.

    Raises Misuse("device-revoked" | "device-quarantined" | "renewal-rejected" | "renewed-lately").
    """
    if state.status == "clone":
        raise Misuse("device-quarantined", f"{state.device} speaks as two devices; an operator must release it or enrol it anew")
    if state.status != "enrolled":
        raise Misuse("device-revoked", f"device {state.device} is {state.status}; an operator must issue a new token")
    check_pace(state.device, lately)
    waiting = state.pending if state.pending is not None and state.pending.kind == "renew" else None
    if now - state.certificate_expires > late_s and (waiting is None or waiting.verdict != "granted"):
        if waiting is None:
            return replace(state, pending=Pending("renew", state.identity, now)), "pending"
        if waiting.verdict == "rejected":
            raise Misuse("renewal-rejected", f"an operator has rejected {state.device}; it needs a new token")
        return state, "pending"
    return (replace(state, pending=None) if waiting else state), "admitted"


def check_pace(device: str, lately: int) -> None:
    """Raise Misuse("renewed-lately") for a device that was given so many certificates within a day."""
    if lately >= MOST_RENEWALS:
        raise Misuse("renewed-lately", f"{device} was given {lately} certificates within a day; use the newest, ask tomorrow")


def decide(state: Enrolment, verdict: Verdict) -> Enrolment:
    """An operator's word on what waits; raises Misuse("nothing-pending")."""
    if state.pending is None:
        raise Misuse("nothing-pending", f"{state.device} waits for nothing; `edgeops device pending` shows who does")
    return replace(state, pending=replace(state.pending, verdict=verdict))


def revoke(state: Enrolment) -> Enrolment:
    """Credentials and token are worthless until an operator issues a new token; raises Misuse("device-decommissioned")."""
    _alive(state)
    return replace(state, status="revoked", token_hash="", token_expires=0, token_spent=None, pending=None)


def decommission(state: Enrolment) -> Enrolment:
    """The end: only a new registration of the same id can undo it; raises Misuse("device-decommissioned")."""
    return replace(revoke(state), status="decommissioned", fingerprint="")


def release(state: Enrolment) -> Enrolment:
    """An operator has seen that there is one device again; raises Misuse("not-quarantined")."""
    if state.status != "clone":
        raise Misuse("not-quarantined", f"{state.device} is {state.status}, not in quarantine")
    return replace(state, status="enrolled")


def _alive(state: Enrolment) -> None:
    if state.status == "decommissioned":
        text = f"{state.device} is decommissioned; `edgeops device register {state.device} --reissue` gives its id to another"
        raise Misuse("device-decommissioned", text)


def _proven(state: Enrolment, ask: Ask, now: int) -> bool:
    """Whether the proof holds; both comparisons are made in constant time and always."""
    held = hmac.compare_digest((state.token_hash or _NOTHING).encode(), ask.secret_hash.encode())
    named = hmac.compare_digest((state.fingerprint or _NOTHING).encode(), fingerprint_of(ask.identity).encode())
    if state.status == "decommissioned":
        return False
    if not state.token_hash:
        return named and state.status in ("registered", "enrolled")
    return held and _is_open(state, ask, now)


def _is_open(state: Enrolment, ask: Ask, now: int) -> bool:
    if state.token_spent is None:
        return now < state.token_expires
    waits = state.pending is not None and state.pending.kind == "enrol" and state.pending.identity == ask.identity
    return waits or _asks_again(state, ask, now)


def _asks_again(state: Enrolment, ask: Ask, now: int) -> bool:
    """Whether this key was admitted a moment ago, or with a token that still lives: its answer may have been lost."""
    if state.status != "enrolled" or state.token_spent is None or state.identity != ask.identity or _other_waits(state, ask):
        return False
    return now < max(state.token_spent + AGAIN_S, state.token_expires if state.token_hash else 0)


def _other_waits(state: Enrolment, ask: Ask) -> bool:
    return state.pending is not None and state.pending.kind == "enrol" and state.pending.identity != ask.identity


def _admitted(state: Enrolment, ask: Ask, now: int) -> Enrolment:
    return replace(
        state, status="enrolled", incarnation=state.incarnation + 1, identity=ask.identity, token_spent=now, pending=None
    )
