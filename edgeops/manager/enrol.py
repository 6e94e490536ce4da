"""How a device gets and keeps its credentials: what `edgeops.fleet.enrol` decides, carried out in one transaction."""

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection

from edgeops.fleet import enrol as rules
from edgeops.fleet.enrol import Ask, Enrolment, Pending
from edgeops.store import audit, outbox, rows
from edgeops.store.rows import Row
from edgeops.store.tables import devices, revocations
from edgeops.wire import envelope, topics
from edgeops.wire.enrol import MAX_CSR, EnrolRequest
from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.fields import Fields
from edgeops.wire.keys import sha256
from edgeops.wire.token import Token

from . import credential, pki
from .csr import Request, read_request
from .devices import must_get, view
from .hub import Hub
from .proof import proven
from .revoke import write_crl
from .site import url

DAY_S = 86_400
POLL_S = 5
_NOBODY = "nobody-" * 9  # longer than any id


def state_of(row: Row) -> Enrolment:
    """How a device stands, as the rules want it."""
    pending = Pending(**row["pending"]) if row["pending"] else None
    return Enrolment(
        row["id"], row["status"], row["incarnation"], (row["identity"] or b"").hex(), row["fingerprint"] or "",
        row["token_hash"] or "", row["token_expires"] or 0, row["token_spent"], bool(row["approval"]), pending,
        row["certificate_expires"] or 0,
    )  # fmt: skip


def keep(tx: Connection, state: Enrolment, **more: Any) -> None:
    """Store what the rules have changed, and `more` columns with it."""
    waits = state.pending
    pending = {"kind": waits.kind, "identity": waits.identity, "since": waits.since, "verdict": waits.verdict} if waits else None
    rows.change(
        tx, devices, {"id": state.device}, status=state.status, incarnation=state.incarnation,
        identity=bytes.fromhex(state.identity) or None, fingerprint=state.fingerprint or None, token_hash=state.token_hash or None,
        token_expires=state.token_expires or None, token_spent=state.token_spent, approval=int(state.approval), pending=pending,
        **more,
    )  # fmt: skip


def new_token(hub: Hub, tx: Connection, state: Enrolment, ttl_s: int | None) -> tuple[Enrolment, str]:
    """The state with a fresh one-time token, and the token's text."""
    secret, now = secrets.token_hex(32), hub.now()
    state = rules.issue(state, sha256(secret.encode()), now, ttl_s or hub.settings.token_ttl_s)
    return state, line(hub, state.device, secret, state.token_expires)


def line(hub: Hub, device: str = "", secret: str = "", expires: int = 0) -> str:
    """What a device needs to find us and to know us; without a secret it is the line for all announced devices."""
    urls = tuple(url("https", name, hub.settings.https_port) for name in hub.settings.addresses)[:8]
    return Token(urls, hub.settings.fleet, device, secret, hub.ca.pin, hub.root_pin, expires).encode()


def redeem(hub: Hub, sealed: bytes) -> dict[str, Any]:
    """Judge a request to enrol: the credentials, or that an operator must approve it first.

    Raises Rejected when it is not signed by the identity key in it, Misuse("token-refused" | "enrolment-rejected" | "bad-csr" |
    "token-raced").
    """
    now, request = hub.now(), EnrolRequest.open(sealed)
    ask = Ask(request.identity.hex(), sha256(request.secret.encode()))
    # Strangers may ask as often as they like: they wait for no writer and keep none waiting.
    with hub.store.read() as tx:
        rules.enrol(_claimant(hub, tx, request), ask, now)
    csr = read_request(request.csr)
    with hub.store.write() as tx:
        before = _claimant(hub, tx, request)
        try:
            state, step = rules.enrol(before, ask, now)
        except Misuse as error:
            raise Misuse("token-raced", "somebody else was faster with this token; ask an operator who that was") from error
        if step == "pending":
            return _waits(tx, before, state, now)
        answer = _enrolled(hub, tx, state, csr, request.agent, now, afresh=step == "admitted")
    if before.incarnation:
        write_crl(hub)
    return answer


def _claimant(hub: Hub, tx: Connection, request: EnrolRequest) -> Enrolment:
    """The device that is asked for, or one that nothing can prove."""
    if request.device:
        row = rows.get(tx, devices, id=request.device)
    else:
        row = rows.get(tx, devices, fingerprint=sha256(request.identity))
    return state_of(row) if row is not None and request.fleet == hub.settings.fleet else Enrolment(_NOBODY)


def _waits(tx: Connection, before: Enrolment, state: Enrolment, now: int) -> dict[str, Any]:
    if state != before and state.pending:
        keep(tx, state)
        key = rules.fingerprint_of(state.pending.identity)
        audit.write(tx, now, state.device, f"device-{state.pending.kind}-pending", state.device, f"identity {key}")
    return {"status": "pending", "device": state.device, "retry_s": POLL_S}


def _enrolled(
    hub: Hub, tx: Connection, state: Enrolment, csr: Request, agent: str, now: int, afresh: bool
) -> dict[str, Any]:
    """The credentials; what the device had before is worthless from now on. Whose answer was lost is given the same ones again."""
    row = must_get(tx, state.device)
    if not afresh and (kept := _again(tx, row, csr, now)):
        return {"status": "enrolled", "device": state.device, "incarnation": state.incarnation, **_credentials(hub, kept)}
    withdraw(tx, row, now)
    pem, columns = _certify(hub, state.device, csr, now)
    # What was known of the boots, documents and orders of an earlier incarnation says nothing about this one.
    known = "boot", "boots", "born", "renewed", "documents", "desired", "desired_expires"
    anew = dict.fromkeys(known) | {"counter": 0, "command": 0}
    keep(tx, state, agent=agent, **(anew if afresh else {}), **columns)
    if afresh:
        text = f"incarnation {state.incarnation}, identity {rules.fingerprint_of(state.identity)}"
        audit.write(tx, now, state.device, "device-enrol", state.device, text)
    return {"status": "enrolled", "device": state.device, "incarnation": state.incarnation, **_credentials(hub, pem)}


def _again(tx: Connection, row: Row, csr: Request, now: int) -> str:
    """The certificate this key was given, for a request that is repeated; empty where it must be a new one, as for another key.

    Raises Misuse("token-refused") once the device has renewed, since its answer was not lost, and Misuse("renewed-lately").
    """
    if row["renewed"]:
        raise Misuse("token-refused", rules.REFUSED)
    kept = row["certificate"] or ""
    if kept and row["certificate_expires"] > now and x509.load_pem_x509_certificate(kept.encode()).public_key() == csr.public:
        return str(kept)
    rules.check_pace(row["id"], sum(one["at"] > now - DAY_S for one in rows.find(tx, revocations, device=row["id"])))
    return ""


def renew(hub: Hub, sealed: bytes) -> dict[str, Any]:
    """A new certificate against a request signed with the identity key, {fleet, device, incarnation, seq, csr}; or `pending`.

    Raises Rejected("stale-renewal" | "incarnation") and for what is malformed, Misuse("renew-refused" | "wrong-name" | "bad-csr")
    and as `rules.renew`.
    """
    device = envelope.contents(sealed, "renew").text("device")
    now = hub.now()
    with hub.store.read() as tx:
        fields, _, _ = _renewable(hub, tx, device, sealed, now)
    csr = read_request(fields.text("csr", most=MAX_CSR))
    if csr.name not in ("", device):
        raise Misuse("wrong-name", f"{device} asks for a certificate called {csr.name}; it may have its own only")
    with hub.store.write() as tx:
        fields, before, lately = _renewable(hub, tx, device, sealed, now)
        state, step = rules.renew(before, lately, now, hub.settings.renew_late_days * DAY_S)
        rows.change(tx, devices, {"id": device}, renewed=fields.number("seq", 1))
        if step == "pending":
            return _waits(tx, before, state, now)
        row = must_get(tx, device)
        _remember(tx, row, now, live=True)
        pem, columns = _certify(hub, device, csr, now)
        keep(tx, state, **columns)
        if not lately:
            audit.write(tx, now, device, "device-renew", device)
        return {"status": "enrolled", "device": device, "incarnation": state.incarnation, **_credentials(hub, pem)}


def _renewable(hub: Hub, tx: Connection, device: str, sealed: bytes, now: int) -> tuple[Fields, Enrolment, int]:
    """The verified request, how the device stands, and how often it was renewed within a day."""
    row, fields = proven(hub, tx, "renew", device, sealed)
    if fields.number("seq", 1) <= (row["renewed"] or 0):
        raise Rejected("stale-renewal", f"renew: request {fields.number('seq')} is not newer than {row['renewed']}")
    lately = sum(one["at"] > now - DAY_S for one in rows.find(tx, revocations, device=device, live=1))
    rules.renew(state_of(row), lately, now, hub.settings.renew_late_days * DAY_S)
    return fields, state_of(row), lately


def _certify(hub: Hub, device: str, csr: Request, now: int) -> tuple[str, dict[str, Any]]:
    days = hub.settings.certificate_days
    certificate = pki.certify(hub.issuer, device, csr.public, now, days)
    pem, serial = certificate.public_bytes(Encoding.PEM).decode(), f"{certificate.serial_number:x}"
    return pem, {"certificate": pem, "certificate_serial": serial, "certificate_expires": now + days * DAY_S}


def _credentials(hub: Hub, certificate: str) -> dict[str, Any]:
    """Certificate, CA, the chain of roots from the first on and the site; raises Misuse("site-unsigned")."""
    papers = hub.papers
    if "site" in papers.stale:
        text = "the site document is signed by a key that the current root no longer names; run `edgeops site sign` on the manager"
        raise Misuse("site-unsigned", text)
    first, *later = (root.decode() for root in papers.roots)
    ca = papers.authority.serving.certificate_pem.decode()
    return {"certificate": certificate, "ca": ca, "root": first, "roots": later, "site": papers.site.decode()}


def revoke(hub: Hub, who: str, device: str) -> dict[str, Any]:
    """Take a device's credentials away; the caller makes the broker reload. Its token, if any, is worthless too."""
    return _end(hub, who, device, "device-revoke", rules.revoke)


def decommission(hub: Hub, who: str, device: str) -> dict[str, Any]:
    """End a device for good; its id is given to another only by registering it with `reissue`."""
    return _end(hub, who, device, "device-decommission", rules.decommission)


def _end(hub: Hub, who: str, device: str, action: str, rule: Callable[[Enrolment], Enrolment]) -> dict[str, Any]:
    now = hub.now()
    with hub.store.write() as tx:
        row = must_get(tx, device)
        state = rule(state_of(row))
        withdraw(tx, row, now)
        # The end is a goodbye: whatever is heard later is heard after it.
        over = {"presence": "offline", "presence_at": now} if state.status == "decommissioned" else {}
        keep(tx, state, silenced_at=None, **over)
        # An empty retained message takes the last desired document off the broker.
        outbox.post(tx, topics.down(device, "desired"), b"", 1, True)
        audit.write(tx, now, who, action, device)
        shown = view(hub, tx, must_get(tx, device))
    write_crl(hub)
    return shown


def release(hub: Hub, who: str, device: str) -> dict[str, Any]:
    """Let a device out of quarantine; what it reports from now on is judged anew. Raises Misuse("not-quarantined")."""
    with hub.store.write() as tx:
        keep(tx, rules.release(state_of(must_get(tx, device))), boots=None)
        audit.write(tx, hub.now(), who, "device-release", device)
        return view(hub, tx, must_get(tx, device))


def withdraw(tx: Connection, row: Row, now: int) -> None:
    """Put a device's certificates, those replaced by renewals too, on the revocation list until they would have expired."""
    rows.change(tx, revocations, {"device": row["id"], "live": 1}, live=None, at=now)
    _remember(tx, row, now, live=False)
    credential.withdraw(tx, row["id"])


def _remember(tx: Connection, row: Row, now: int, live: bool) -> None:
    """A certificate that was replaced (and still works) or withdrawn."""
    if row["certificate_serial"]:
        serial, expires = row["certificate_serial"], row["certificate_expires"]
        values: Mapping[str, Any] = {"device": row["id"], "at": now, "expires": expires, "live": 1 if live else None}
        rows.add(tx, revocations, serial=serial, **values)
