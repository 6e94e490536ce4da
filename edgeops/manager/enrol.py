"""How a device gets and keeps its credentials: register, redeem the token, renew, revoke."""

import hmac
import secrets
from collections.abc import Collection, Mapping
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection

from edgeops.store import audit, outbox, rows
from edgeops.store.rows import Row
from edgeops.store.tables import devices, revocations
from edgeops.wire import canonical, envelope, topics
from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.fields import HEX64, Fields
from edgeops.wire.keys import sha256
from edgeops.wire.messages import open_report
from edgeops.wire.token import Token

from . import pki
from .devices import blank, check_new, must_get, view
from .files import write_whole
from .hub import Hub
from .site import url

REFUSED = "this enrolment token is unknown, spent or expired; run `edgeops device token ID` for a new one"


def register(hub: Hub, who: str, device: str, labels: Mapping[str, str], ttl_s: int | None = None) -> dict[str, Any]:
    """A new device and its enrolment token ; raises Misuse("device-id-invalid" | "labels-invalid" | "device-exists")."""
    check_new(device, labels)
    with hub.store.write() as tx:
        if not rows.add(tx, devices, **blank(device, labels, hub.now())):
            raise Misuse("device-exists", f"there is a device {device!r} already; `edgeops device token {device}` renews its token")
        return _answer(hub, tx, who, "device-register", device, ttl_s)


def reissue(hub: Hub, who: str, device: str, ttl_s: int | None = None) -> dict[str, Any]:
    """A new token for a known device, which makes older ones worthless; a revoked device may come back this way."""
    with hub.store.write() as tx:
        must_get(tx, device)
        return _answer(hub, tx, who, "device-token", device, ttl_s)


def _answer(hub: Hub, tx: Connection, who: str, action: str, device: str, ttl_s: int | None) -> dict[str, Any]:
    text = _new_token(hub, tx, device, ttl_s)
    audit.write(tx, hub.now(), who, action, device)
    row = must_get(tx, device)
    return {"device": view(hub, tx, row), "token": text, "expires": row["token_expires"]}


def _new_token(hub: Hub, tx: Connection, device: str, ttl_s: int | None) -> str:
    settings, secret = hub.settings, secrets.token_hex(32)
    expires = hub.now() + (ttl_s or settings.token_ttl_s)
    rows.change(
        tx, devices, {"id": device}, token_hash=sha256(secret.encode()), token_expires=expires, token_spent=None
    )
    urls = tuple(url("https", name, settings.https_port) for name in settings.addresses)[:8]
    return Token(urls, settings.fleet, device, secret, hub.ca.pin, hub.root_pin, expires).encode()


def redeem(hub: Hub, body: Mapping[str, Any]) -> dict[str, Any]:
    """Burn a token and return the credentials; raises Misuse("token-refused" | "bad-csr" | "bad-identity").

    One answer for all ways a token can be wrong, so that nobody learns which devices exist. A device whose answer got lost may
    spend its token again with the same identity key and keeps its incarnation.
    """
    now = hub.now()
    if not HEX64.fullmatch(str(body["identity"])):
        raise Misuse("bad-identity", "identity must be a raw Ed25519 public key, 64 hex digits")
    identity = bytes.fromhex(str(body["identity"]))
    # Strangers may ask as often as they like: they wait for no writer and keep none waiting.
    with hub.store.read() as tx:
        _spendable(tx, body, identity, now)
    with hub.store.write() as tx:
        row = _spendable(tx, body, identity, now)
        pem, columns = _certify(hub, row["id"], str(body["csr"]).encode(), now)
        incarnation = row["incarnation"] + (0 if row["token_spent"] is not None else 1)
        _withdraw(tx, row, now)
        rows.change(
            tx, devices, {"id": row["id"]}, status="enrolled", incarnation=incarnation, identity=identity, token_spent=now,
            agent=str(body.get("agent", ""))[:64], boot=None, desired=None, desired_expires=None, **columns,
        )  # fmt: skip
        audit.write(tx, now, row["id"], "device-enrol", row["id"], f"incarnation {incarnation}")
        answer = {"device": row["id"], "incarnation": incarnation, **_credentials(hub, pem)}
    write_crl(hub)
    return answer


def _spendable(tx: Connection, body: Mapping[str, Any], identity: bytes, now: int) -> Row:
    """The device whose token this is; raises Misuse("token-refused") unless it is open, or was spent by this very identity."""
    row = rows.get(tx, devices, id=str(body["token_device"]))
    known = row["token_hash"] if row is not None and row["token_hash"] else "0" * 64
    good = hmac.compare_digest(sha256(str(body["secret"]).encode()), known)
    mine = row is not None and (row["token_spent"] is None or row["identity"] == identity)
    if row is None or not good or not mine or row["token_expires"] <= now:
        raise Misuse("token-refused", REFUSED)
    return row


def renew(hub: Hub, sealed: bytes) -> dict[str, Any]:
    """A new certificate against a request signed with the identity key: payload {fleet, device, incarnation, csr}.

    Raises Rejected when the signature does not verify, Misuse("device-revoked" | "bad-csr").
    """
    device = _claimed(sealed)
    now = hub.now()
    with hub.store.read() as tx:
        _renewable(hub, tx, device, sealed)
    with hub.store.write() as tx:
        row, fields = _renewable(hub, tx, device, sealed)
        pem, columns = _certify(hub, device, fields.text("csr", most=pki.MAX_CSR).encode(), now)
        rows.change(tx, devices, {"id": device}, **columns)
        audit.write(tx, now, device, "device-renew", device)
        return {"device": device, "incarnation": row["incarnation"], **_credentials(hub, pem)}


def _renewable(hub: Hub, tx: Connection, device: str, sealed: bytes) -> tuple[Row, Fields]:
    row = rows.get(tx, devices, id=device)
    if row is None or row["identity"] is None:
        raise Rejected("bad-signature", "renew: no such device, or not signed by its identity key")
    fields = open_report(sealed, "renew", row["identity"])
    if fields.text("fleet") != hub.settings.fleet or fields.number("incarnation", 1) != row["incarnation"]:
        raise Rejected("incarnation", "renew: of another fleet or incarnation; enrol the device again")
    if row["status"] != "enrolled":
        raise Misuse("device-revoked", f"device {device} is {row['status']}; an operator must issue a new token")
    return row, fields


def _claimed(sealed: bytes) -> str:
    return Fields.of(canonical.decode(envelope.split(sealed, "renew")[0], "renew"), "renew").text("device")


def _certify(hub: Hub, device: str, csr: bytes, now: int) -> tuple[str, dict[str, Any]]:
    days = hub.settings.certificate_days
    certificate = pki.sign_request(hub.ca, device, csr, now, days)
    columns = {"certificate_serial": f"{certificate.serial_number:x}", "certificate_expires": now + days * 86_400}
    return certificate.public_bytes(Encoding.PEM).decode(), columns


def _credentials(hub: Hub, certificate: str) -> dict[str, str]:
    return {
        "certificate": certificate, "ca": hub.ca.certificate_pem.decode(), "root": hub.first_root.decode(),
        "site": hub.site_document.decode(),
    }  # fmt: skip


def revoke(hub: Hub, who: str, device: str) -> dict[str, Any]:
    """Take a device's credentials away; the caller makes the broker reload. Its token, if any, is worthless too."""
    now = hub.now()
    with hub.store.write() as tx:
        row = must_get(tx, device)
        _withdraw(tx, row, now)
        rows.change(tx, devices, {"id": device}, status="revoked", token_hash=None, token_expires=None, token_spent=None)
        # An empty retained message takes the last desired document off the broker.
        outbox.post(tx, topics.down(device, "desired"), b"", 1, True)
        audit.write(tx, now, who, "device-revoke", device)
        shown = view(hub, tx, must_get(tx, device))
    write_crl(hub)
    return shown


def _withdraw(tx: Connection, row: Row, now: int) -> None:
    """Put a device's certificate on the revocation list, where it stays until it would have expired."""
    if row["certificate_serial"]:
        serial, expires = row["certificate_serial"], row["certificate_expires"]
        rows.add(tx, revocations, serial=serial, device=row["id"], at=now, expires=expires)


def revoked(hub: Hub) -> Collection[str]:
    """The names of all revoked devices."""
    with hub.store.read() as tx:
        return [row["id"] for row in rows.find(tx, devices, status="revoked")]


def write_crl(hub: Hub) -> None:
    """Write the revocation list anew from the database; alone among writers, so that an older list never replaces a newer one."""
    now = hub.now()
    with hub.store.write() as tx:
        serials = [int(row["serial"], 16) for row in rows.find(tx, revocations) if row["expires"] > now]
        write_whole(hub.layout.crl, pki.make_crl(hub.ca, serials, now))
