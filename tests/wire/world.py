"""A small fleet of keys and documents for the trust tests, and ways to lie about them."""

import base64
import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from edgeops.parcel.stream import cut
from edgeops.wire import canonical, envelope
from edgeops.wire.desired import CommandDocument, Desired, Floor, SignedTime, SlotWish
from edgeops.wire.keys import Signer, sha256
from edgeops.wire.release import Release, Side, Tensor, Variant
from edgeops.wire.root import Role, Root, Site
from edgeops.wire.trust import Capabilities, Trust, pin_root

FLEET, DEVICE, NONCE, NOW = "orchard", "dev-1", "ab" * 32, 20_000


def key(name: str) -> Signer:
    """The key called `name`."""
    return Signer.from_seed(hashlib.sha256(name.encode()).digest())


ROOTS = (key("root-a"), key("root-b"), key("root-c"))
NEXT = (key("root-d"), key("root-e"), key("root-f"))
SITES, RELEASES, ONLINE, STRANGER = (key("s-a"), key("s-b")), (key("r-a"), key("r-b")), key("online"), key("stranger")


def root_of(version: int = 1, epoch: int = 1, keys: Iterable[Signer] = ROOTS, **other: Any) -> Root:
    """A root document: 2 of 3 root, 2 of 2 site, 2 of 2 release, 1 online."""
    roles = {"root": tuple(keys), "site": SITES, "release": RELEASES, "online": (ONLINE,)}
    public = {signer.id: signer.public for signers in roles.values() for signer in signers}
    thresholds = {"root": 2, "site": 2, "release": 2, "online": 1}
    table = {name: Role(tuple(s.id for s in signers), thresholds[name]) for name, signers in roles.items()}
    return replace(Root(FLEET, version, epoch, 1000, public, table), **other)


def seal_root(root: Root, signers: Iterable[Signer] = ROOTS[:2], **extra: Any) -> bytes:
    """A root envelope; `extra` fields join the payload."""
    return envelope.seal("root", root.payload() | extra, signers)


FIRST = seal_root(root_of())
PIN = envelope.digest_of(FIRST, "root")
TRUST: Trust = replace(
    pin_root(FIRST, FLEET, PIN, DEVICE, 2),
    site_version=3, counter=5, command=3, floor_version=2, floors={"pears": 4}, time_floor=10_000,
)  # fmt: skip
PEM = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"
SITE = Site(FLEET, 4, 1000, (PEM,), ("mqtts://manager:8883",), ("https://manager:8443",))
TIME = SignedTime(FLEET, DEVICE, NONCE, NOW, 1, 5)
COMMAND = CommandDocument(FLEET, DEVICE, 2, 1, 4, "ack", 6)
FLOOR = Floor(FLEET, 3, {"pears": 6})
SIDE = Side("c" * 64, 10)
RELEASE = Release(
    FLEET, "model", "pears", 7, 1000, (Tensor("x", "float32", (-1, 4)),), (Tensor("y", "float32", (-1, 2)),), 10, 21, "1.20",
    {"small": Variant(("x86-vnni",), {"session.x64quantprecision": "1"}, SIDE, 30, 99)}, {"lineage": SIDE},
)  # fmt: skip
DEVICE_CAN = Capabilities("x86-vnni", (1, 20), 10, 21)


def sealed(name: str, document: Any, *signers: Signer, **extra: Any) -> bytes:
    """An envelope of a document, by default signed as it should be; `extra` fields join (or replace) the payload's."""
    right = {"site": SITES, "release": RELEASES, "floor": RELEASES}.get(name, (ONLINE,))
    return envelope.seal(name, document.payload() | extra, signers or right)


def digest(release: Release = RELEASE) -> str:
    """The digest desired names a release by."""
    return sha256(canonical.encode(release.payload()))


LISTED = sealed("stream", cut(FLEET, [bytes(30)])[0])
STREAM = envelope.digest_of(LISTED, "stream")
DESIRED = Desired(
    FLEET, DEVICE, 2, 1, 6, 19_000, 30_000, {"main": SlotWish("run", digest(), "small", STREAM, "r-1")}, "all", ("https://mirror",)
)


def raw(name: str, body: bytes, *signers: Signer, kind: str = "", pae: Any = envelope.pae) -> bytes:
    """An envelope of any payload bytes, correctly signed under type `name`, labelled `kind`: what a hostile signer can make."""
    message = pae(envelope.TYPES[name], body)
    signatures = [{"keyid": s.id, "sig": base64.b64encode(s.sign(message)).decode()} for s in sorted(signers, key=lambda s: s.id)]
    return wrap(base64.b64encode(body).decode(), envelope.TYPES[kind or name], signatures)


def wrap(payload: str, kind: str, signatures: list[dict[str, str]], **extra: Any) -> bytes:
    """Envelope bytes of ready parts."""
    return canonical.encode({"payload": payload, "payloadType": kind, "signatures": signatures} | extra)


def tweak(data: bytes, **changes: Any) -> bytes:
    """An envelope with some outer fields replaced; a callable gets the old value."""
    outer = json.loads(data)
    for name, value in changes.items():
        outer[name] = value(outer[name]) if callable(value) else value
    return canonical.encode(outer)
