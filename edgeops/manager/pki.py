"""Certificates: our CA, the server's, the manager's, and devices' for the keys they have made. EC P-256 throughout.

Names of devices come from their enrolment, never from what a request says. Validity begins an hour early for clocks that run late.
"""

import datetime as dt
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgeops.wire.errors import Misuse
from edgeops.wire.keys import private_pem, sha256

HERE = ("localhost", "127.0.0.1", "::1")
HOUR = dt.timedelta(hours=1)
CA_DAYS, SERVER_DAYS, CRL_DAYS = 3650, 825, 365


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate, PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key, PKCS8 PEM without a passphrase."""
        return private_pem(self.key)

    @property
    def pin(self) -> str:
        """SHA-256 of the certificate (DER), as enrolment tokens name it."""
        return sha256(self.certificate.public_bytes(Encoding.DER))

    @staticmethod
    def load(certificate: bytes, key: bytes) -> "Pair":
        """Read both from PEM; raises Misuse("bad-pki")."""
        try:
            return Pair(x509.load_pem_x509_certificate(certificate), load_key(key))
        except ValueError as error:
            raise Misuse("bad-pki", f"the CA files cannot be read: {error}; restore pki/ from a backup") from None


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """A TLS key from PEM; raises Misuse("bad-pki")."""
    try:
        private = load_pem_private_key(pem, None)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise ValueError("not an elliptic-curve key")
    except (ValueError, TypeError) as error:
        raise Misuse("bad-pki", f"a key in pki/ cannot be read: {error}; restore pki/ from a backup") from None
    return private


def pin_of(pem: str) -> str:
    """SHA-256 of a certificate (DER) given as PEM; empty for what is none."""
    try:
        return sha256(x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER))
    except ValueError:
        return ""


def is_signed_by(certificate: x509.Certificate, ca: Pair) -> bool:
    """Whether this CA has signed it."""
    try:
        certificate.verify_directly_issued_by(ca.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def make_ca(fleet: str, now: int) -> Pair:
    """A new self-signed CA for one fleet."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"edgeops {fleet} CA")
    builder = (
        _begin(name, name, key.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Pair(builder.sign(key, hashes.SHA256()), key)


def server_names(addresses: Iterable[str]) -> tuple[str, ...]:
    """Every name in a server certificate, each once."""
    return tuple(address for address in dict.fromkeys((*addresses, *HERE)) if address not in ("0.0.0.0", "::"))  # noqa: S104


def make_server(ca: Pair, addresses: Iterable[str], now: int) -> Pair:
    """A server certificate for these host names and IP addresses, and for this machine itself, which is how the manager calls."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = [_general_name(address) for address in server_names(addresses)]
    builder = _leaf(ca, "edgeops-server", key.public_key(), now, SERVER_DAYS, ExtendedKeyUsageOID.SERVER_AUTH)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Pair(builder.sign(ca.key, hashes.SHA256()), key)


def make_client(ca: Pair, name: str, now: int, days: float) -> Pair:
    """A client certificate with a key made here: the manager's own, and those it proves a revocation with."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _leaf(ca, name, key.public_key(), now, days, ExtendedKeyUsageOID.CLIENT_AUTH)
    return Pair(builder.sign(ca.key, hashes.SHA256()), key)


def certify(ca: Pair, name: str, public: ec.EllipticCurvePublicKey, now: int, days: int) -> x509.Certificate:
    """A client certificate called `name` for somebody else's key."""
    return _leaf(ca, name, public, now, days, ExtendedKeyUsageOID.CLIENT_AUTH).sign(ca.key, hashes.SHA256())


def make_crl(ca: Pair, serials: Iterable[int], now: int, updated: int | None = None) -> bytes:
    """The revocation list (PEM) with these serial numbers, in force since `updated` (else since an hour ago).

    It names the key of its issuer, so that two CAs of one name during a rotation are not mixed up.
    """
    at = _time(now)
    builder = x509.CertificateRevocationListBuilder().issuer_name(ca.certificate.subject)
    builder = builder.last_update(_time(updated) if updated is not None else at - HOUR)
    builder = builder.next_update(at + dt.timedelta(days=CRL_DAYS))
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    builder = builder.add_extension(issuer, critical=False)
    for serial in sorted(set(serials)):
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at).build()
        builder = builder.add_revoked_certificate(revoked)
    return builder.sign(ca.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _leaf(
    ca: Pair, name: str, public: ec.EllipticCurvePublicKey, now: int, days: float, purpose: x509.ObjectIdentifier
) -> x509.CertificateBuilder:
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    return (
        _begin(_name(name), ca.certificate.subject, public, now, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(issuer, critical=False)
    )


def _begin(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: int, days: float
) -> x509.CertificateBuilder:
    at = _time(now)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(at - HOUR).not_valid_after(at + dt.timedelta(days=days))


def _usage(sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=sign_certificates, crl_sign=sign_certificates, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip


def _general_name(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _time(now: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(now, dt.UTC)
