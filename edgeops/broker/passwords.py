"""Passwords of browsers in mosquitto's own form (`$7$`, PBKDF2-SHA512), which both brokers read; the password is kept nowhere.

The passwords are 256 random bits, so the count of rounds is mosquitto's default and not a defence against guessing. Pure.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

_ROUNDS = 101
_SALT_BYTES = 12
# Nobody finds a password that hashes to nothing but zeros. mosquitto ends the sessions of names whose line has changed, not of
# those whose line is gone, so a credential that has ended keeps a line.
LOCKED = f"$7${_ROUNDS}${base64.b64encode(bytes(_SALT_BYTES)).decode()}${base64.b64encode(bytes(64)).decode()}"


def verifier(password: str, salt: bytes) -> str:
    """What to keep instead of `password`; `salt` is 12 random bytes, which is all that mosquitto 2.0 reads."""
    if len(salt) != _SALT_BYTES:
        raise ValueError(f"a salt has {_SALT_BYTES} bytes")
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ROUNDS)
    return f"$7${_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def fits(password: str, kept: str) -> bool:
    """Whether `password` is the one that `kept` was made from; in constant time."""
    try:
        _, kind, rounds, salt, digest = kept.split("$")
        expected = base64.b64decode(digest, validate=True)
        given = hashlib.pbkdf2_hmac("sha512", password.encode(), base64.b64decode(salt, validate=True), int(rounds))
    except (ValueError, binascii.Error):
        return False
    return kind == "7" and hmac.compare_digest(expected, given)


def render(verifiers: Mapping[str, str]) -> str:
    """The password file: a line a name."""
    return "".join(f"{name}:{kept}\n" for name, kept in sorted(verifiers.items()))


def parse(text: str) -> dict[str, str]:
    """Names and verifiers of a password file."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: kept for name, colon, kept in pairs if colon}
