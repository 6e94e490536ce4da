"""Bearer tokens of an OpenID Connect issuer: signed with one of its keys in one of four algorithms; what a token says of keys is
not believed."""

from dataclasses import dataclass
from typing import Any

import jwt

from edgeops.manager.login import Login, accept
from edgeops.manager.tokens import Caller
from edgeops.wire.errors import Misuse

from .issuer import Issuer, Jwk

# Each algorithm with the only kind of key it may be used with: no `none`, nothing symmetric, no public key taken for a secret.
ALGORITHMS = {"RS256": ("RSA", None), "PS256": ("RSA", None), "ES256": ("EC", "P-256"), "EdDSA": ("OKP", "Ed25519")}
KINDS = ("jwt", "at+jwt")
# With these a token would name its own key, or ask for what we do not do; `crit` the library refuses itself.
REFUSED = ("jku", "jwk", "x5u", "x5c", "b64", "zip", "cty", "enc")
MOST_CHARS, MOST_NAME = 12_000, 256
OPTIONS: Any = {
    "enforce_minimum_key_length": True, "verify_aud": False, "verify_iss": False, "verify_exp": False, "verify_nbf": False,
    "verify_iat": False, "verify_sub": False, "verify_jti": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bearers:
    """Those who come with a token of the issuer."""

    login: Login
    issuer: Issuer

    def caller(self, text: str, now: int) -> Caller:
        """Who presents this token; raises Misuse with a reason for each way it can be wrong, Unreachable for the issuer's."""
        name, algorithm = _header(text)
        return accept(self.login, _claims(text, self.issuer.key(name), algorithm), now)


def _header(text: str) -> tuple[str, str]:
    """The key's name and the algorithm that a token claims; no more of it is believed before the signature."""
    try:
        if len(text) > MOST_CHARS:
            raise ValueError
        header = jwt.get_unverified_header(text)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise Misuse("oidc-malformed", "the bearer token is no signed JWT") from None
    if found := [name for name in REFUSED if name in header]:
        raise Misuse("oidc-header", f"the token's header has {', '.join(found)}, which is not accepted")
    kind, algorithm, name = (header.get(one) for one in ("typ", "alg", "kid"))
    if str(kind or "jwt").lower().removeprefix("application/") not in KINDS:
        raise Misuse("oidc-kind", "the token is of a kind that is not for APIs")
    if algorithm not in ALGORITHMS:
        raise Misuse("oidc-algorithm", f"the token's algorithm is not one of {', '.join(ALGORITHMS)}")
    if not isinstance(name, str) or not 0 < len(name) <= MOST_NAME:
        raise Misuse("oidc-key", "the token does not name the key it is signed with")
    return name, str(algorithm)


def _claims(text: str, key: Jwk, algorithm: str) -> dict[str, Any]:
    if (key.get("kty"), key.get("crv")) != ALGORITHMS[algorithm] or key.get("alg", algorithm) != algorithm:
        raise Misuse("oidc-algorithm", f"the key that the token names is not for {algorithm}")
    try:
        return jwt.decode(text, jwt.PyJWK(dict(key), algorithm), [algorithm], OPTIONS)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise Misuse("oidc-signature", "the token's signature does not verify with the issuer's key") from None
