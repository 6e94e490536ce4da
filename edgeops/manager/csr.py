"""Signing requests of devices: a P-256 key that its owner has proven, and nothing else that a request might ask for."""

from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgeops.wire.enrol import MAX_CSR
from edgeops.wire.errors import Misuse
from edgeops.wire.fields import ID


@dataclass(frozen=True, slots=True)
class Request:
    """The key to be certified, and the name the request gives itself, empty for none. We never take names from here."""

    public: ec.EllipticCurvePublicKey
    name: str


def read_request(pem: str) -> Request:
    """Read and verify a signing request; raises Misuse("bad-csr").

    What it is to be called and allowed comes from the manager. A request that asks for extensions (another name, to be a CA) is
    refused, not ignored: whoever sends it expects something that must not be had.
    """
    try:
        if len(pem) > MAX_CSR:
            raise ValueError(f"more than {MAX_CSR} bytes")
        csr = x509.load_pem_x509_csr(pem.encode())
        public = csr.public_key()
        if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
            raise ValueError("its key is not EC P-256")
        if not csr.is_signature_valid:
            raise ValueError("its signature does not verify")
        if list(csr.extensions) or list(csr.attributes):
            raise ValueError("it asks for extensions or attributes; it may hold a key and a name, nothing else")
        return Request(public, _name(csr.subject))
    except Exception as error:  # cryptography raises several kinds for malformed requests
        raise Misuse("bad-csr", f"the signing request cannot be used: {str(error)[:300]}") from None


def _name(subject: x509.Name) -> str:
    parts = list(subject)
    if not parts:
        return ""
    if len(parts) > 1 or parts[0].oid != NameOID.COMMON_NAME or not ID.fullmatch(str(parts[0].value)):
        raise ValueError(f"its subject may be one common name of the form {ID.pattern}, or empty")
    return str(parts[0].value)
