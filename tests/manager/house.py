"""A manager in a temporary folder, a small signed release, and a device with its own keys."""

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from edgeops.manager.layout import Layout
from edgeops.manager.settings import Settings
from edgeops.manager.setup import Setup, initialise, load_signer
from edgeops.parcel.manifest import Manifest
from edgeops.wire.desired import Desired
from edgeops.wire.envelope import seal
from edgeops.wire.keys import Signer, sha256
from edgeops.wire.messages import Bundle, Presence, SlotReport, State
from edgeops.wire.release import Release, Side, Tensor, Variant
from edgeops.wire.trust import Trust, accept_desired, accept_release, accept_time

NOW = 1_900_000_000
FLEET = "testfleet"


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: int = NOW) -> None:
        self.now = now

    def __call__(self) -> int:
        """Unix seconds."""
        return self.now


def new_manager(folder: Path, now: int = NOW, **settings: object) -> Setup:
    """Initialise a manager on free ports."""
    quick = Settings(https_port=0, mqtt_port=0, tick_ms=50, want_window_ms=50, **settings)  # type: ignore[arg-type]
    return initialise(folder, FLEET, ("localhost", "127.0.0.1"), now, quick)


def side(data: bytes) -> Side:
    """The side object of some bytes."""
    return Side(sha256(data), len(data))


@dataclass(frozen=True)
class Made:
    """A release with all its objects by digest."""

    envelope: bytes
    release: Release
    objects: dict[str, bytes]


def make_release(
    signer: Signer, version: int = 1, model: str = "digits", size: int = 150_000, classes: tuple[str, ...] = ("any",),
    reference: bytes | None = None,
) -> Made:  # fmt: skip
    """A release whose bytes mean nothing but hash rightly."""
    skeleton, tensor = b"skeleton %d" % version, secrets.token_bytes(size)
    golden = b"golden %d" % version
    manifest = Manifest(side(skeleton), (side(tensor),)).encode()
    bodies = [skeleton, tensor, golden, manifest, *([reference] if reference else [])]
    variant = Variant(
        classes, {}, side(manifest), side(golden), side(reference) if reference else None, sum(map(len, bodies))
    )
    shape = (Tensor("x", "float32", (-1, 4)),)
    release = Release(FLEET, "model", model, version, NOW, shape, shape, 10, 17, "1.20", {"base": variant}, {})
    return Made(seal("release", release.payload(), [signer]), release, {sha256(body): body for body in bodies})


def release_signer(folder: Path) -> Signer:
    """The publisher's key, as the forge would read it."""
    return load_signer(Layout(folder).key("release"))


@dataclass
class FakeDevice:
    """A device's keys, and what it believes."""

    id: str
    identity: Signer = field(default_factory=lambda: Signer(Ed25519PrivateKey.generate()))
    tls: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    incarnation: int = 1
    boot: str = field(default_factory=lambda: secrets.token_hex(16))
    nonce: str = field(default_factory=lambda: secrets.token_hex(32))
    seq: int = 0
    trust: Trust | None = None

    def csr(self, name: str = "whatever") -> str:
        """A signing request; the name in it must not matter."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self.tls, hashes.SHA256())
        return request.public_bytes(Encoding.PEM).decode()

    def tls_pem(self) -> bytes:
        """The TLS key."""
        return self.tls.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def enrolment(self, secret: str) -> dict[str, str]:
        """The body of POST /enroll."""
        return {
            "token_device": self.id, "secret": secret, "csr": self.csr(), "identity": self.identity.public.hex(), "agent": "test",
        }  # fmt: skip

    def presence(self, kind: str = "birth", device_class: str = "x86-vnni") -> bytes:
        """A sealed presence message."""
        nonce = self.nonce if kind == "birth" else ""
        capabilities = {"class": device_class, "runtime": "1.32", "wire": [1], "agent": "test"}
        message = Presence(FLEET, self.id, self.incarnation, self.boot, kind, nonce, capabilities, {"cpus": 2})
        return seal("presence", message.payload(), [self.identity])

    def state(self, slots: dict[str, SlotReport], counter: int = 0, counters: dict[str, int] | None = None) -> bytes:
        """A sealed state report with the next number."""
        self.seq += 1
        message = State(FLEET, self.id, self.incarnation, self.boot, self.seq, counter, slots, counters or {})
        return seal("state", message.payload(), [self.identity])

    def read(self, payload: bytes, now: int) -> tuple[Desired | None, dict[str, bytes]]:
        """Verify a bundle as a device does: the believed desired document, and the other documents by digest or kind."""
        assert self.trust is not None
        desired, documents = None, {}
        for kind, data in Bundle.decode(payload).documents:
            if kind == "time":
                self.trust, signed = accept_time(self.trust, data, self.nonce)
                documents["time"] = data
                now = signed.now
            elif kind == "release":
                documents[accept_release(self.trust, data)[0]] = data
            elif kind == "stream":
                documents["stream"] = data
            elif kind == "desired":
                self.trust, desired = accept_desired(self.trust, data, now)
        return desired, documents
