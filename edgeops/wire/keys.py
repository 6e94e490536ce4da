"""Ed25519 keys as values: key id = first 32 hex digits of SHA-256 of the raw public key."""

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from .errors import Rejected


def sha256(data: bytes) -> str:
    """Lower-case hex SHA-256."""
    return hashlib.sha256(data).hexdigest()


def key_id(public: bytes) -> str:
    """The id of a raw 32-byte public key."""
    return sha256(public)[:32]


def public_bytes(private: Ed25519PrivateKey) -> bytes:
    """The raw 32-byte public key of `private`."""
    return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def is_signed(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` (64 bytes) over `message` verifies with the raw `public` key."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key that can sign; the only shape in which wire code ever sees one."""

    private: Ed25519PrivateKey

    @property
    def public(self) -> bytes:
        """Raw public key, 32 bytes."""
        return public_bytes(self.private)

    @property
    def id(self) -> str:
        """Key id, 32 hex digits."""
        return key_id(self.public)

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature, 64 bytes."""
        return self.private.sign(message)

    @staticmethod
    def from_seed(seed: bytes) -> "Signer":
        """The key of a 32-byte seed; raises Rejected on another length."""
        if len(seed) != 32:
            raise Rejected("malformed", "an Ed25519 seed has 32 bytes")
        return Signer(Ed25519PrivateKey.from_private_bytes(seed))
