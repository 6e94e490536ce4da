"""The TLS key of this device and the certificate it was given: one file, so that no power cut can part them."""

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from edgeops.wire.errors import Rejected

from .disk import write_whole
from .identity import Paths

PRIVATE = 0o600


@dataclass(frozen=True, slots=True)
class Pair:
    """A P-256 key and the certificate of its public half."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        """Both, as OpenSSL reads them from one file."""
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return key + self.certificate.public_bytes(Encoding.PEM)

    @property
    def renew_at(self) -> int:
        """Unix seconds at which two thirds of the certificate's life are over."""
        begins, ends = (int(at.timestamp()) for at in (self.certificate.not_valid_before_utc, self.certificate.not_valid_after_utc))
        return begins + (ends - begins) * 2 // 3


def pair_of(key: bytes, certificate: bytes) -> Pair:
    """A pair from PEM; raises Rejected("pair-damaged") unless the certificate is for this key."""
    try:
        private, issued = load_pem_private_key(key, None), x509.load_pem_x509_certificate(certificate)
    except (ValueError, TypeError) as error:
        raise Rejected("pair-damaged", f"the TLS key or its certificate cannot be read: {error}") from None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or issued.public_key() != private.public_key():
        raise Rejected("pair-damaged", "the certificate is not for the TLS key beside it")
    return Pair(private, issued)


def read_pair(paths: Paths) -> Pair | None:
    """The pair in use; None when there is none that can be used, so that a new certificate must be asked for."""
    key, certificate = files_of(paths)
    try:
        return pair_of(key.read_bytes(), certificate.read_bytes())
    except (OSError, Rejected):
        return None


def files_of(paths: Paths) -> tuple[Path, Path]:
    """Where key and certificate lie: in one file, or as enrolment (and older agents) left them."""
    return (paths.pair, paths.pair) if paths.pair.exists() else (paths.tls_key, paths.certificate)


def keep_pair(path: Path, pair: Pair) -> None:
    """Replace the pair at once and durably; raises Unfit (disk)."""
    write_whole(path, pair.pem, PRIVATE)


def join_files(paths: Paths) -> None:
    """Make one file of the two; raises Unfit (disk), and then the two still work."""
    if not paths.pair.exists() and (pair := read_pair(paths)):
        keep_pair(paths.pair, pair)
    if paths.pair.exists():
        for path in (paths.certificate, paths.tls_key):
            path.unlink(missing_ok=True)
