"""How this device enrols: keys made here, a request signed with its identity, credentials that are believed only if they fit.

Killed at any point, the same command goes on where it stopped: the keys are on disk before the manager is asked, it gives the same
device the same answer again, and nothing counts until the record is there.
"""

import secrets
import ssl
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from edgeops import __version__
from edgeops.wire.enrol import EnrolRequest
from edgeops.wire.errors import EdgeopsError, Misuse, Rejected, Unreachable
from edgeops.wire.fields import ID
from edgeops.wire.keys import private_pem, sha256
from edgeops.wire.token import Token
from edgeops.wire.trust import Trust, accept_site, pin_chain

from ..core.record import Record
from . import https
from .credentials import pair_of, signing_request
from .disk import StateFolder
from .files import DISK, PRIVATE, Files
from .identity import Paths, load_signer, own_signer
from .reach import Way

TIMEOUT_S = 20
FIRST_S, MOST_S = 2.0, 60.0
MANAGERS = "edgeops.toml"
Wait = Callable[[str, str], None]
"""Called with device and fingerprint while an operator has not decided yet; it returns when it is time to ask again, or raises."""


@dataclass(slots=True)
class Patience:
    """Asks again after a while that doubles up to a minute; `say` hears once what is waited for."""

    say: Callable[[str], None]
    pause: Callable[[float], None] = time.sleep
    _next: float = FIRST_S

    def wait(self, device: str, fingerprint: str) -> None:
        """Wait a little."""
        if self._next == FIRST_S:
            told = f"waiting for an operator: `edgeops device approve {device}` (identity {fingerprint})"
            self.say(f"{told}; Ctrl-C loses nothing, the same command goes on")
        self.pause(self._next * (0.5 + secrets.randbelow(1 << 20) / (1 << 20)))
        self._next = min(2 * self._next, MOST_S)


def impatient(device: str, fingerprint: str) -> None:
    """Do not wait; raises Unreachable("enrolment-pending")."""
    text = f"{device} waits for an operator: `edgeops device approve {device}` (identity {fingerprint}); then enrol again"
    raise Unreachable("enrolment-pending", text)


def enroll(text: str, state: Path, wait: Wait = impatient, files: Files = DISK) -> Trust:
    """Redeem a pasted token or join line: make keys here, get a certificate, keep everything.

    Raises Misuse (token, folder, already enrolled, refused), Unreachable (no manager, not approved yet), Unfit (disk), Rejected
    (the manager or its answer is not to be believed).
    """
    token = Token.decode(text)
    folder = open_folder(state, files)
    try:
        if folder.is_enrolled():
            raise Misuse("already-enrolled", _again(state))
        folder.prepare()
        return _redeem(token, folder, Paths(state, files), wait)
    finally:
        folder.release()


def _again(state: Path) -> str:
    """How a device that is enrolled, was revoked perhaps, is enrolled anew and keeps its key: nothing is deleted."""
    moved = f"`mv {state} {state}.old && install -d -m 700 {state} && cp -p {state}.old/{Paths(state).identity.name} {state}/`"
    text = f"{state} already holds an enrolled device. To enrol it anew with the same identity key, stop the agent, then {moved}"
    return f"{text}, and enrol again; for another device choose another --state folder"


def make_identity(state: Path) -> str:
    """The fingerprint of this device's identity key, which is made if there is none, as at the factory.

    A key that is there is read whatever agent uses the folder: it never changes.
    """
    _no_manager(state, DISK)
    if (paths := Paths(state)).has(paths.identity):
        return sha256(load_signer(paths).public)
    folder = open_folder(state)
    try:
        return sha256(own_signer(paths).public)
    finally:
        folder.release()


def open_folder(state: Path, files: Files = DISK) -> StateFolder:
    """Claim a folder to be an agent's; raises Misuse("state-folder" | "agent-running")."""
    _no_manager(state, files)
    folder = StateFolder(state, files)
    folder.create()
    folder.claim()
    return folder


def _no_manager(state: Path, files: Files) -> None:
    if files.look(state / MANAGERS):
        raise Misuse("state-folder", f"{state} holds a manager ({MANAGERS}); choose another --state folder")


def _redeem(token: Token, folder: StateFolder, paths: Paths, wait: Wait) -> Trust:
    signer, key = own_signer(paths), _tls_key(folder, paths)
    csr = signing_request(key, token.device)
    request = EnrolRequest(token.fleet, token.device, token.secret, signer.public, csr, __version__).seal(signer)
    waiting = ""
    while True:
        try:
            status, answer = _ask(token, request)
            if status == 201:
                return _keep(token, answer, folder, paths)
            waiting = str(answer.get("device", token.device))[:64]
        except Unreachable:
            if not waiting:  # a manager that restarts meanwhile has not forgotten us
                raise
        wait(waiting, sha256(signer.public))


def _keep(token: Token, answer: dict[str, Any], folder: StateFolder, paths: Paths) -> Trust:
    """Believe the manager's answer as far as it proves itself; the record is written last."""
    try:
        device, incarnation = str(answer["device"]), int(answer["incarnation"])
        if not ID.fullmatch(device) or (token.device and device != token.device):
            raise Rejected("wrong-device", f"the manager answers for device {device[:64]!r}, the token is for {token.device}")
        roots = [str(root).encode() for root in (answer["root"], *answer.get("roots", ()))]
        trust = pin_chain(roots, token.fleet, token.root_pin, device, incarnation)
        trust, _ = accept_site(trust, str(answer["site"]).encode())
        certificate = str(answer["certificate"]).encode()
    except (KeyError, TypeError, ValueError) as error:
        raise Rejected("malformed", f"the manager's answer cannot be used: {error!r}") from None
    pair_of(paths.files.read(paths.tls_key), certificate)
    for path, data in ((paths.certificate, certificate), (paths.site, str(answer["site"]).encode())):
        folder.put_whole(path, data, PRIVATE)
    folder.keep(Record(trust))  # whole or not there; the first copy of the record can be torn, and has none beside it
    folder.save(Record(trust))
    return trust


def _tls_key(folder: StateFolder, paths: Paths) -> ec.EllipticCurvePrivateKey:
    """A new TLS key, on disk; the same one again when an earlier try got that far."""
    try:
        held = load_pem_private_key(folder.files.read(paths.tls_key), None)
        if isinstance(held, ec.EllipticCurvePrivateKey) and isinstance(held.curve, ec.SECP256R1):
            return held
    except (OSError, ValueError, TypeError):
        pass
    made = ec.generate_private_key(ec.SECP256R1())
    folder.put_whole(paths.tls_key, private_pem(made), PRIVATE)
    return made


def _ask(token: Token, request: bytes) -> tuple[int, dict[str, Any]]:
    """201 or 202 with its answer, from the first URL that answers, over TLS pinned to the token's CA."""
    last: EdgeopsError = Unreachable("no-url", "the token names no manager address")
    for url in token.urls:
        try:
            way = Way(url, _pinned_ca(url, token.ca_pin).decode(), 0)
            status, answer = https.ask(way, "POST", "/api/v1/enroll", request, None)
            if status in (201, 202):
                return status, answer
            raise _refused(status, answer)
        except Unreachable as error:
            last = error
    raise last


def _refused(status: int, answer: dict[str, Any]) -> EdgeopsError:
    reason, detail = str(answer.get("reason", "refused"))[:64], str(answer.get("detail", f"status {status}"))[:500]
    return (Unreachable if status >= 500 or status == 429 else Misuse)(reason, f"the manager refused: {detail}")


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
        ca = x509.load_pem_x509_certificate(pem)
    except ValueError:
        ca = None
    if ca is None or sha256(ca.public_bytes(Encoding.DER)) != pin:
        text = f"{url} presents another CA than the token names: do not trust this network, or the manager's CA was replaced"
        raise Rejected("ca-pin", f"{text}: ask for a new line")
    return ca.public_bytes(Encoding.PEM)
