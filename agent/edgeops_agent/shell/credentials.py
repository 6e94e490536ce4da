"""The TLS key of this device and the certificate it was given: one file, so that no power cut can part them."""

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID

from edgeops.wire.errors import Rejected
from edgeops.wire.keys import private_pem

from .disk import refusals, write_whole
from .files import PRIVATE
from .identity import Paths


@dataclass(frozen=True, slots=True)
class Pair:
    """A P-256 key and the certificate of its public half."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        """Both, as OpenSSL reads them from one file."""
        return private_pem(self.key) + self.certificate.public_bytes(Encoding.PEM)

    @property
    def renew_at(self) -> int:
        """Unix seconds at which two thirds of the certificate's life are over."""
        begins, ends = (int(at.timestamp()) for at in (self.certificate.not_valid_before_utc, self.certificate.not_valid_after_utc))
        return begins + (ends - begins) * 2 // 3


def signing_request(key: ec.EllipticCurvePrivateKey, device: str) -> str:
    """A certificate signing request (PEM) for `key`; without a device's name where that is not known yet."""
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, device)] if device else []
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(parts)).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()


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
        return pair_of(paths.files.read(key), paths.files.read(certificate))
    except (OSError, Rejected):
        return None


def files_of(paths: Paths) -> tuple[Path, Path]:
    """Where key and certificate lie: in one file, or as enrolment (and older agents) left them."""
    return (paths.pair, paths.pair) if paths.has(paths.pair) else (paths.tls_key, paths.certificate)


def keep_pair(paths: Paths, pair: Pair) -> None:
    """Replace the pair at once and durably; raises Unfit (disk)."""
    write_whole(paths.pair, pair.pem, PRIVATE, paths.files)


def join_files(paths: Paths) -> None:
    """Make one file of the two; raises Unfit (disk), and then the two still work."""
    if not paths.has(paths.pair) and (pair := read_pair(paths)):
        keep_pair(paths, pair)
    if paths.has(paths.pair):
        with refusals("the TLS files of enrolment"):
            for path in (paths.certificate, paths.tls_key):
                paths.files.remove(path)
