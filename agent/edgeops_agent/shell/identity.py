"""Who this device is: its Ed25519 identity key, its P-256 TLS key, and how it enrols with a one-time token."""

import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from edgeops import __version__
from edgeops.wire.errors import EdgeopsError, Misuse, Rejected, Unreachable
from edgeops.wire.keys import Signer, sha256
from edgeops.wire.token import Token
from edgeops.wire.trust import Trust, accept_site, pin_root

from ..core.record import Record
from .disk import StateFolder, write_whole
from .tls import timeless

TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the keys and certificates of one agent lie."""

    root: Path

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
    def ca(self) -> Path:
        """CA certificates of the site, PEM."""
        return self.root / "ca.crt"

    @property
    def pair(self) -> Path:
        """Key and certificate in one file, made of the two above at the first start and replaced at each renewal."""
        return self.root / "tls.pem"

    @property
    def pending(self) -> Path:
        """While enrolling: the digest of the token these keys were made for."""
        return self.root / "enrolling"

    @property
    def site(self) -> Path:
        """The site document of the enrolment (envelope), which stays as a last resort."""
        return self.root / "site.json"


def load_signer(paths: Paths) -> Signer:
    """The identity key; raises Misuse("not-enrolled") or Rejected("identity-damaged")."""
    try:
        key = load_pem_private_key(paths.identity.read_bytes(), None)
    except FileNotFoundError:
        raise Misuse("not-enrolled", f"{paths.root} holds no identity key; run `edgeops-agent enroll TOKEN`") from None
    except (OSError, ValueError, TypeError) as error:
        raise _damaged("identity", paths.identity, error) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _damaged("identity", paths.identity, "not an Ed25519 key")
    return Signer.of(key)


def _damaged(what: str, path: Path, error: object) -> Rejected:
    message = f"{path} cannot be used ({error}); delete {path.parent} and enrol with a new token"
    return Rejected(f"{what}-damaged", message)


def enroll(text: str, state: Path) -> Trust:
    """Redeem a pasted token: make keys here, get a certificate, keep everything.

    The keys are on disk before the token is spent, so that it can be redeemed again when the answer got lost or found no space.
    Raises Misuse (token, folder, already enrolled), Unreachable (no manager), Unfit (disk), Rejected (the manager or its answer
    is not to be believed).
    """
    token = Token.decode(text)
    folder = StateFolder(state)
    folder.create()
    folder.claim()
    try:
        if folder.is_enrolled():
            raise Misuse("already-enrolled", f"{state} already holds an enrolled device; use another --state folder or delete it")
        folder.prepare()
        return _redeem(token, folder, Paths(state))
    finally:
        folder.release()


def _redeem(token: Token, folder: StateFolder, paths: Paths) -> Trust:
    identity, tls = _keys(token, paths)
    request = {
        "token_device": token.device, "secret": token.secret, "csr": _csr(tls, token.device),
        "identity": Signer.of(identity).public.hex(), "agent": __version__,
    }  # fmt: skip
    answer, ca = _ask(token, request)
    try:
        trust = pin_root(str(answer["root"]).encode(), token.fleet, token.root_pin, token.device, int(answer["incarnation"]))
        trust, site = accept_site(trust, str(answer["site"]).encode())
        certificate = str(answer["certificate"]).encode()
        x509.load_pem_x509_certificate(certificate)
    except (KeyError, TypeError, ValueError) as error:
        raise Rejected("malformed", f"the manager's answer cannot be used: {error!r}") from None
    for path, data in (
        (paths.certificate, certificate), (paths.ca, "".join(site.cas).encode() or ca), (paths.site, str(answer["site"]).encode()),
    ):  # fmt: skip
        write_whole(path, data, 0o600)
    folder.save(Record(trust))
    paths.pending.unlink(missing_ok=True)
    return trust


def _keys(token: Token, paths: Paths) -> tuple[Ed25519PrivateKey, ec.EllipticCurvePrivateKey]:
    """New keys, on disk; the same ones again when this token was tried before."""
    mark = sha256(token.encode().encode()).encode()
    try:
        if paths.pending.read_bytes() == mark:
            identity = load_pem_private_key(paths.identity.read_bytes(), None)
            tls = load_pem_private_key(paths.tls_key.read_bytes(), None)
            if isinstance(identity, Ed25519PrivateKey) and isinstance(tls, ec.EllipticCurvePrivateKey):
                return identity, tls
    except (OSError, ValueError):
        pass
    identity, tls = Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())
    write_whole(paths.identity, identity.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    write_whole(paths.tls_key, tls.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    write_whole(paths.pending, mark, 0o600)
    return identity, tls


def _csr(key: ec.EllipticCurvePrivateKey, device: str) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()


def _ask(token: Token, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """POST the request to the first URL that answers, over TLS pinned to the token's CA."""
    last: EdgeopsError = Unreachable("no-url", "the token names no manager address")
    for url in token.urls:
        try:
            ca = _pinned_ca(url, token.ca_pin)
            context = timeless(ca.decode())
            return _post(f"{url}/api/v1/enroll", request, context), ca
        except Unreachable as error:
            last = error
    raise last


def _pinned_ca(url: str, pin: str) -> bytes:
    """The manager's CA certificate, fetched over unverified TLS and believed only because its SHA-256 is in the token."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(f"{url}/api/v1/ca", timeout=TIMEOUT_S, context=context) as reply:  # noqa: S310
            pem: bytes = reply.read(1 << 16)
    except (OSError, HTTPException) as error:
        raise Unreachable("manager-unreachable", f"no manager answers at {url}: {error}; is `edgeops up` running?") from None
    try:
        found = sha256(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER))
    except ValueError:
        found = ""
    if found != pin:
        raise Rejected("ca-pin", f"{url} presents another CA than the token names; do not trust this network")
    return pem


def _post(url: str, body: dict[str, Any], context: ssl.SSLContext) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=context) as reply:  # noqa: S310
            answer = json.loads(reply.read(1 << 20))
    except urllib.error.HTTPError as error:
        raise _problem(error) from None
    except (OSError, HTTPException, ValueError) as error:
        raise Unreachable("manager-unreachable", f"{url} did not answer as a manager does: {error}; try the token again") from None
    if not isinstance(answer, dict):
        raise Rejected("malformed", f"{url} gave no JSON object")
    return answer


def _problem(error: urllib.error.HTTPError) -> EdgeopsError:
    try:
        problem = json.loads(error.read(1 << 16))
        reason, detail = str(problem.get("reason", "refused")), str(problem.get("detail", error.reason))
    except (ValueError, AttributeError):
        reason, detail = "refused", str(error.reason)
    kind = Unreachable if error.code >= 500 else Misuse
    return kind(reason, f"the manager refused: {detail}")
