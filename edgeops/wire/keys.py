"""Ed25519 keys as values: key id = first 32 hex digits of SHA-256 of the raw public key."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from .errors import Misuse, Rejected
from .fields import HEX64


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
    """Something that signs: a raw public key of 32 bytes and a function. Where the private half is (memory, HSM) it alone knows."""

    public: bytes
    sign: Callable[[bytes], bytes]

    @property
    def id(self) -> str:
        """Key id, 32 hex digits."""
        return key_id(self.public)

    @staticmethod
    def of(private: Ed25519PrivateKey) -> "Signer":
        """The signer of a private key in memory."""
        return Signer(public_bytes(private), private.sign)

    @staticmethod
    def from_seed(seed: bytes) -> "Signer":
        """The key of a 32-byte seed; raises Rejected on another length."""
        if len(seed) != 32:
            raise Rejected("malformed", "an Ed25519 seed has 32 bytes")
        return Signer.of(Ed25519PrivateKey.from_private_bytes(seed))


def private_pem(private: Ed25519PrivateKey | EllipticCurvePrivateKey, passphrase: str = "") -> bytes:
    """A private key, that signs or of TLS, as PKCS8 PEM, encrypted where there is a passphrase."""
    hidden = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden)


def public_pem(public: bytes) -> bytes:
    """A raw public key as PEM, as other tools want it."""
    return Ed25519PublicKey.from_public_bytes(public).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def is_encrypted(pem: bytes) -> bool:
    """Whether a private key (PEM) asks for a passphrase."""
    return b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in pem


def signer_from_pem(pem: bytes, where: str, passphrase: str = "") -> Signer:
    """The Ed25519 key in PKCS8 PEM, called `where` in errors. Raises Misuse("bad-key" | "passphrase-needed" | "bad-passphrase")."""
    if is_encrypted(pem) and not passphrase:
        text = f"{where} is encrypted; set EDGEOPS_KEY_PASSPHRASE or name a file that holds the passphrase"
        raise Misuse("passphrase-needed", text)
    try:
        key = load_pem_private_key(pem, passphrase.encode() if is_encrypted(pem) else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if is_encrypted(pem):
            raise Misuse("bad-passphrase", f"{where} does not open with this passphrase") from None
        raise Misuse("bad-key", f"{where} cannot be read as a private key: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise Misuse("bad-key", f"{where} is not an Ed25519 key; `edgeops key new` makes one")
    return Signer.of(key)


def public_from_text(text: str, where: str) -> bytes:
    """A raw public key from 64 hex digits or PEM; `where` names it in errors. Raises Misuse("bad-key")."""
    text = text.strip()
    try:
        if HEX64.fullmatch(text):
            return _checked(bytes.fromhex(text))
        key = load_pem_public_key(text.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Misuse("bad-key", f"{where} is no public key (64 hex digits or PEM): {error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise Misuse("bad-key", f"{where} is not an Ed25519 key")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _checked(public: bytes) -> bytes:
    Ed25519PublicKey.from_public_bytes(public)
    return public
