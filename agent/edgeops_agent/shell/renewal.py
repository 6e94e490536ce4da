"""One renewal: a new key, a request signed with the identity, an answer that is believed only if it fits that key and our CAs."""

from collections.abc import Mapping, Sequence
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgeops.wire import envelope
from edgeops.wire.errors import EdgeopsError, Misuse, Rejected, Unreachable
from edgeops.wire.keys import Signer
from edgeops.wire.root import Site
from edgeops.wire.trust import Trust, accept_site

from .credentials import Pair, signing_request

PATH = "/api/v1/renew"


class Pending(Misuse):
    """The manager wants an operator to approve this device first; the same question is asked again later."""


def request(trust: Trust, signer: Signer, key: ec.EllipticCurvePrivateKey, number: int) -> bytes:
    """The `renew` envelope that asks for a certificate for `key`; `number` is greater than any before, so that it is good once."""
    csr = signing_request(key, trust.device)
    payload = {"fleet": trust.fleet, "device": trust.device, "incarnation": trust.incarnation, "seq": number, "csr": csr}
    return envelope.seal("renew", payload, [signer])


def read_answer(
    status: int, answer: Mapping[str, Any], key: ec.EllipticCurvePrivateKey, trust: Trust, sites: Sequence[Site]
) -> Pair:
    """The new pair; raises Pending, Misuse (the manager says no), Unreachable (it cannot now), Rejected("bad-certificate")."""
    if status == 202:
        raise Pending("renewal-pending", "the certificate waits for an operator's approval at the manager")
    if status != 201:
        reason, detail = str(answer.get("reason", "refused")), str(answer.get("detail", f"status {status}"))
        raise (Unreachable if status >= 500 else Misuse)(reason, f"the manager gives no new certificate: {detail[:300]}")
    try:
        certificate = x509.load_pem_x509_certificate(str(answer["certificate"]).encode())
    except (KeyError, ValueError) as error:
        raise Rejected("bad-certificate", f"the manager's answer holds no certificate: {error}") from None
    names = [str(found.value) for found in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if certificate.public_key() != key.public_key() or names != [trust.device]:
        raise Rejected("bad-certificate", "the certificate in the answer is not for this device and its new key")
    if not any(_issued(certificate, pem) for site in (*sites, *_told(answer, trust)) for pem in site.cas):
        raise Rejected("bad-certificate", "the certificate in the answer was issued by none of the CAs of our site")
    return Pair(key, certificate)


def _told(answer: Mapping[str, Any], trust: Trust) -> list[Site]:
    """The newer site document in the answer, if it is one that we may believe: its CA may be new too."""
    try:
        return [accept_site(trust, str(answer["site"]).encode())[1]]
    except (KeyError, EdgeopsError):
        return []


def _issued(certificate: x509.Certificate, ca: str) -> bool:
    try:
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(ca.encode()))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
