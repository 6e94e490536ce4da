"""Who this device is: its Ed25519 identity key, and where that and its other keys and certificates lie."""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.keys import Signer, private_pem

from .disk import write_whole
from .files import DISK, PRIVATE, Files


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the keys and certificates of one agent lie, and on which disk."""

    root: Path
    files: Files = field(default=DISK, compare=False, repr=False)

    def has(self, path: Path) -> bool:
        """Whether there is such a file; one that cannot be looked at does not count."""
        with contextlib.suppress(OSError):
            return self.files.look(path) is not None
        return False

    @property
    def identity(self) -> Path:
        """Ed25519 identity key, PEM."""
        return self.root / "identity.key"

    @property
    def tls_key(self) -> Path:
        """While enrolling: the P-256 TLS key, PEM."""
        return self.root / "tls.key"

    @property
    def certificate(self) -> Path:
        """From enrolment until the first start: the client certificate, PEM."""
        return self.root / "tls.crt"

    @property
    def pair(self) -> Path:
        """Key and certificate in one file, made of the two others at the first start and replaced at each renewal."""
        return self.root / "tls.pem"

    @property
    def site(self) -> Path:
        """The site document of the enrolment (envelope), which stays as a last resort."""
        return self.root / "site.json"


def load_signer(paths: Paths) -> Signer:
    """The identity key; raises Misuse("not-enrolled") or Rejected("identity-damaged")."""
    try:
        key = load_pem_private_key(paths.files.read(paths.identity), None)
    except FileNotFoundError:
        raise Misuse("not-enrolled", f"{paths.root} holds no identity key; run `edgeops-agent enroll TOKEN`") from None
    except (OSError, ValueError, TypeError) as error:
        raise _damaged("identity", paths.identity, error) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _damaged("identity", paths.identity, "not an Ed25519 key")
    return Signer.of(key)


def own_signer(paths: Paths) -> Signer:
    """The identity key, made now if there is none: one for the life of the folder. Raises Rejected("identity-damaged"), Unfit."""
    if not paths.has(paths.identity):
        write_whole(paths.identity, private_pem(Ed25519PrivateKey.generate()), PRIVATE, paths.files)
    return load_signer(paths)


def _damaged(what: str, path: Path, error: object) -> Rejected:
    message = f"{path} cannot be used ({error}); delete {path.parent} and enrol with a new token"
    return Rejected(f"{what}-damaged", message)
