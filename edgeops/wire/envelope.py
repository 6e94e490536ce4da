"""DSSE envelopes (github.com/secure-systems-lab/dsse, protocol.md), strict: canonical JSON and base64 only.

Every signature in an envelope must come from a key we were given and must verify; there are no bystanders, so no byte of an
envelope can change unnoticed. Thresholds count distinct keys. The payload is signed as raw bytes under its type (PAE).
"""

import base64
import binascii
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import canonical
from .errors import Misuse, Rejected
from .fields import HEX32, Fields
from .keys import Signer, is_signed, sha256

MAX_SIGNATURES = 16
MAX_ENVELOPE = canonical.MAX_BYTES * 4 // 3 + (16 << 10)  # base64 of the largest payload, and its signatures
TYPES = {
    name: f"application/vnd.edgeops.{name}.v1+json"
    for name in (
        "root", "site", "release", "floor", "desired", "time", "command", "stream", "state", "presence", "enrol", "renew",
        "checkpoint", "credential",
    )
}


@dataclass(frozen=True, slots=True)
class Opened:
    """A verified payload: its fields, the digest of its bytes and the ids of the keys that signed it."""

    fields: Fields
    digest: str
    signed_by: frozenset[str]


def pae(payload_type: str, body: bytes) -> bytes:
    """Pre-authentication encoding: what is really signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)


def seal(name: str, payload: Mapping[str, Any], signers: Iterable[Signer]) -> bytes:
    """Envelope bytes of `payload` as document type `name` (a key of TYPES), signed by all `signers`.

    Raises Misuse: not-canonical, too-large (nobody would open it).
    """
    body = canonical.encode(dict(payload))
    if len(body) > canonical.MAX_BYTES:
        raise Misuse("too-large", f"{name} has {len(body)} bytes, {canonical.MAX_BYTES} are allowed; split it")
    return _wrap(name, body, _signatures(name, body, signers))


def countersign(data: bytes, name: str, signers: Iterable[Signer]) -> bytes:
    """The same envelope with the signatures of `signers` added: how a half-signed document goes from holder to holder.

    Raises Rejected as `split`, Misuse("too-many-signatures").
    """
    body, signatures = split(data, name)
    joined = signatures | _signatures(name, body, signers)
    if len(joined) > MAX_SIGNATURES:
        raise Misuse("too-many-signatures", f"{name}: an envelope holds at most {MAX_SIGNATURES} signatures")
    return _wrap(name, body, joined)


def signed_only_by(data: bytes, name: str, keys: Collection[str]) -> bytes:
    """The same envelope without the signatures of all other keys; raises Rejected as `split`."""
    body, signatures = split(data, name)
    return _wrap(name, body, {keyid: signature for keyid, signature in signatures.items() if keyid in keys})


def apart(data: bytes, name: str) -> tuple[Any, dict[str, str]]:
    """Payload as a value and signatures (base64) by key id, unverified: shorter and easier to read than the envelope.

    `together` makes the same bytes of them. Raises Rejected as `split`, and when the payload is not canonical.
    """
    body, signatures = split(data, name)
    return canonical.decode(body, name), {keyid: _b64(signature) for keyid, signature in signatures.items()}


def together(name: str, payload: Any, signatures: Mapping[str, str]) -> bytes:
    """The reverse of `apart`; raises Misuse when the payload has no canonical form. Nothing is believed by this."""
    rows = [{"keyid": keyid, "sig": signatures[keyid]} for keyid in sorted(signatures)]
    return canonical.encode({"payload": _b64(canonical.encode(payload)), "payloadType": TYPES[name], "signatures": rows})


def signers_of(data: bytes, name: str) -> frozenset[str]:
    """The ids of the keys that claim to have signed, unverified; raises Rejected as `split`."""
    return frozenset(split(data, name)[1])


def _signatures(name: str, body: bytes, signers: Iterable[Signer]) -> dict[str, bytes]:
    message = pae(TYPES[name], body)
    return {signer.id: signer.sign(message) for signer in signers}


def _wrap(name: str, body: bytes, signatures: Mapping[str, bytes]) -> bytes:
    rows = [{"keyid": keyid, "sig": _b64(signatures[keyid])} for keyid in sorted(signatures)]
    return canonical.encode({"payload": _b64(body), "payloadType": TYPES[name], "signatures": rows})


def open_sealed(data: bytes, name: str, keys: Mapping[str, bytes], threshold: int) -> Opened:
    """Verify an envelope of type `name` against `keys` (id -> raw public key); at least `threshold` of them must have signed.

    Raises Rejected: not-canonical, malformed, wrong-type, unknown-key, bad-signature, threshold.
    """
    body, signatures = split(data, name)
    message = pae(TYPES[name], body)
    for keyid, signature in signatures.items():
        if keyid not in keys:
            raise Rejected("unknown-key", f"{name}: signed by unknown key {keyid}; re-sign it with a key of the current root")
        if not is_signed(keys[keyid], signature, message):
            raise Rejected("bad-signature", f"{name}: the signature of key {keyid} does not verify")
    if threshold < 1 or len(signatures) < threshold:
        raise Rejected("threshold", f"{name}: {len(signatures)} of {threshold} required signatures")
    return Opened(Fields.of(canonical.decode(body, name), name), sha256(body), frozenset(signatures))


def split(data: bytes, name: str) -> tuple[bytes, dict[str, bytes]]:
    """Payload bytes and signatures of an envelope, unverified; raises Rejected when it is not a canonical envelope of `name`."""
    outer = Fields.of(canonical.decode(data, f"{name} envelope", MAX_ENVELOPE), f"{name} envelope")
    if outer.data.keys() != {"payload", "payloadType", "signatures"}:
        raise Rejected("malformed", f"{name} envelope: unexpected fields")
    if outer.text("payloadType") != TYPES[name]:
        raise Rejected("wrong-type", f"expected a {name} document, got {outer.text('payloadType')!r}")
    signatures: dict[str, bytes] = {}
    order: list[str] = []
    for item in outer.items("signatures", MAX_SIGNATURES):
        entry = Fields.of(item, f"{name} envelope.signatures")
        if entry.data.keys() != {"keyid", "sig"}:
            raise Rejected("malformed", f"{name} envelope: unexpected fields in a signature")
        order.append(entry.text("keyid", HEX32))
        signatures[order[-1]] = _unb64(entry.text("sig"), name)
    if order != sorted(set(order)):
        raise Rejected("malformed", f"{name} envelope: signatures must be sorted by distinct key ids")
    return _unb64(outer.text("payload", most=MAX_ENVELOPE), name), signatures


def contents(data: bytes, name: str) -> Fields:
    """The fields of an envelope's payload, unverified: of what was believed before, or to learn whose key to ask."""
    return Fields.of(canonical.decode(split(data, name)[0], name), name)


def digest_of(data: bytes, name: str) -> str:
    """The digest (of the payload bytes) an envelope would have, unverified."""
    return sha256(split(data, name)[0])


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unb64(text: str, name: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Rejected("malformed", f"{name} envelope: not base64") from None
    if _b64(data) != text:
        raise Rejected("not-canonical", f"{name} envelope: base64 is not canonical")
    return data
