"""Credentials of browsers, which cannot present certificates: a password of an hour, asked for with the identity key.

Kept is a verifier. A challenge carries its own proof, so asking for one costs us nothing and any manager of the fleet can check
it. It is good once: the credential's life is counted from it, and an older challenge than the last one used is refused.
"""

import base64
import hashlib
import hmac
import re
import secrets
from typing import Any

from sqlalchemy import Connection, select

from edgeops.broker import passwords
from edgeops.fleet.device import check_id
from edgeops.store import audit, rows
from edgeops.store.tables import credentials, devices
from edgeops.wire import envelope
from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.fields import ID

from .files import write_changed
from .hub import Hub
from .proof import proven
from .site import url

LIFE_S, CHALLENGE_S = 3_600, 60
NONCE = re.compile(r"[0-9a-f]{1,16}\.[0-9a-f]{32}\.[A-Za-z0-9_-]{43}")


def challenge(hub: Hub, device: str) -> dict[str, Any]:
    """A nonce for this device, whether there is one or not; raises Misuse("no-websocket" | "device-id-invalid")."""
    _needs_listener(hub)
    check_id(device)
    now = hub.now()
    body = f"{now:x}.{secrets.token_hex(16)}"
    return {"nonce": f"{body}.{_proof(hub, device, body)}", "expires": now + CHALLENGE_S}


def issue(hub: Hub, sealed: bytes) -> dict[str, Any]:
    """A new credential against a `credential` envelope {fleet, device, incarnation, nonce}; an older one of the device ends.

    Raises Rejected("bad-nonce" | "nonce-expired" | "nonce-spent" | "incarnation") and for what is malformed,
    Misuse("no-websocket" | "credential-refused" | "device-revoked"). The caller makes the broker reload.
    """
    _needs_listener(hub)
    device = envelope.contents(sealed, "credential").text("device", ID)
    now, password = hub.now(), secrets.token_hex(32)
    # Strangers may ask as often as they like: they wait for no writer and keep none waiting.
    with hub.store.read() as tx:
        _judged(hub, tx, device, sealed, now)
    with hub.store.write() as tx:
        made = _judged(hub, tx, device, sealed, now)
        kept = passwords.verifier(password, secrets.token_bytes(12))
        rows.put(tx, credentials, device=device, verifier=kept, expires=made + LIFE_S)
        audit.write(tx, now, device, "device-credential", device)
    address = url("wss", hub.settings.addresses[0], hub.settings.wss_port)
    return {"url": address, "username": device, "password": password, "expires": made + LIFE_S}


def _judged(hub: Hub, tx: Connection, device: str, sealed: bytes, now: int) -> int:
    """When the challenge was made that this device answers here for the first time; raises as `issue`."""
    row, fields = proven(hub, tx, "credential", device, sealed)
    if row["status"] != "enrolled":
        raise Misuse("device-revoked", f"device {device} is {row['status']}; an operator must issue a new token")
    made = _minted(hub, device, fields.text("nonce", NONCE), now)
    before = rows.get(tx, credentials, device=device)
    if before is not None and made + LIFE_S <= before["expires"]:
        raise Rejected("nonce-spent", "credential: this challenge, or a later one, was answered already; ask for another")
    return made


def write_passwords(hub: Hub) -> int | None:
    """Write the broker's password file; when the next credential ends, None for never.

    One that has ended, or whose device is out, keeps a line nobody has the password of, since mosquitto ends no session of a name
    that is gone.
    """
    now = hub.now()
    with hub.store.read() as tx:
        known = select(devices.c.id).join(credentials, credentials.c.device == devices.c.id).where(devices.c.status == "enrolled")
        enrolled = set(tx.execute(known).scalars())
        kept = rows.find(tx, credentials)
    alive = {row["device"] for row in kept if row["expires"] > now and row["device"] in enrolled}
    lines = {row["device"]: row["verifier"] if row["device"] in alive else passwords.LOCKED for row in kept}
    data = passwords.render(lines).encode()
    write_changed(hub.layout.passwords, data, 0o600)
    return min((row["expires"] for row in kept if row["device"] in alive), default=None)


def withdraw(tx: Connection, device: str) -> None:
    """End a device's credential, as its session when the broker is told."""
    rows.change(tx, credentials, {"device": device}, verifier=passwords.LOCKED)


def _needs_listener(hub: Hub) -> None:
    if not hub.settings.wss_port:
        raise Misuse("no-websocket", "this manager does not listen for browsers; set wss_port in edgeops.toml and restart it")


def _minted(hub: Hub, device: str, nonce: str, now: int) -> int:
    """When we made this challenge; raises Rejected("bad-nonce" | "nonce-expired")."""
    body, _, proof = nonce.rpartition(".")
    if not hmac.compare_digest(_proof(hub, device, body).encode(), proof.encode()):
        raise Rejected("bad-nonce", "credential: this challenge was not made here for this device; ask for one")
    made = int(body.partition(".")[0], 16)
    if not made <= now < made + CHALLENGE_S:
        raise Rejected("nonce-expired", f"credential: a challenge is good for {CHALLENGE_S} s; ask for another")
    return made


def _proof(hub: Hub, device: str, body: str) -> str:
    """Made with a key that only holders of the online key can derive."""
    key = hashlib.sha256(hub.online.sign(b"edgeops challenge key")).digest()
    tag = hmac.digest(key, f"{device} {body}".encode(), "sha256")
    return base64.urlsafe_b64encode(tag).decode().rstrip("=")
