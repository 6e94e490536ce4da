"""A manager in a temporary folder, a small signed release, and a device with its own keys."""

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from edgeops.manager import enrol, register, releases, rollouts
from edgeops.manager.deliver import Delivery
from edgeops.manager.hub import Hub
from edgeops.manager.ingest import Ingest
from edgeops.manager.layout import Layout
from edgeops.manager.register import Wanted
from edgeops.manager.settings import Settings
from edgeops.manager.setup import Setup, initialise, load_signer
from edgeops.parcel.manifest import Manifest
from edgeops.store import outbox
from edgeops.wire import topics
from edgeops.wire.desired import CommandDocument, Desired
from edgeops.wire.enrol import EnrolRequest
from edgeops.wire.envelope import seal
from edgeops.wire.keys import Signer, sha256
from edgeops.wire.messages import Bundle, Presence, SlotReport, State
from edgeops.wire.release import Release, Side, Tensor, Variant
from edgeops.wire.token import Token
from edgeops.wire.trust import (
    Trust,
    accept_command,
    accept_desired,
    accept_floor,
    accept_release,
    accept_site,
    accept_time,
    advance_root,
    pin_root,
    versions,
)

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
    skeleton, tensor = b"skeleton %d" % version, random.Random(f"{model} {version}").randbytes(size)
    golden = b"golden %d" % version
    compared = side(reference) if reference else None
    manifest = Manifest(side(skeleton), (side(tensor),), side(golden), compared).encode()
    bodies = [skeleton, tensor, golden, manifest, *([reference] if reference else [])]
    variant = Variant(classes, {}, side(manifest), sum(map(len, bodies)))
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
    identity: Signer = field(default_factory=lambda: Signer.of(Ed25519PrivateKey.generate()))
    tls: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    incarnation: int = 1
    boot: str = field(default_factory=lambda: secrets.token_hex(16))
    nonce: str = field(default_factory=lambda: secrets.token_hex(32))
    seq: int = 0
    trust: Trust | None = None
    commands: list[CommandDocument] = field(default_factory=list)

    def csr(self, name: str = "whatever") -> str:
        """A signing request; the name in it must not matter."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self.tls, hashes.SHA256())
        return request.public_bytes(Encoding.PEM).decode()

    def tls_pem(self) -> bytes:
        """The TLS key."""
        return self.tls.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def enrolment(self, secret: str, **other: Any) -> bytes:
        """The body of POST /enroll; `other` are fields to change."""
        request = EnrolRequest(FLEET, self.id, secret, self.identity.public, self.csr(), "test")
        return replace(request, **other).seal(self.identity)

    def renewal(self, **other: Any) -> bytes:
        """The body of POST /renew; `other` are fields to change."""
        self.seq += 1
        body = {"fleet": FLEET, "device": self.id, "incarnation": self.incarnation, "seq": self.seq, "csr": self.csr(self.id)}
        return seal("renew", body | other, [self.identity])

    def presence(
        self, kind: str = "birth", device_class: str = "x86-vnni", understands: Sequence[str] = ("conditions",)
    ) -> bytes:
        """A sealed presence message."""
        nonce = self.nonce if kind == "birth" else ""
        capabilities = {"class": device_class, "runtime": "1.32", "wire": [1], "agent": "test"}
        capabilities |= {"understands": list(understands)} if understands else {}
        self.seq += kind == "birth"
        number = self.seq if kind == "birth" else 0
        known = versions(self.trust) if self.trust and kind == "birth" else {}
        message = Presence(FLEET, self.id, self.incarnation, self.boot, kind, nonce, capabilities, {"cpus": 2}, known, number)
        return seal("presence", message.payload(), [self.identity])

    def state(self, slots: dict[str, SlotReport], counter: int = 0, **more: Any) -> bytes:
        """A sealed state report with the next number; `more` are its counters, its newest command and its outcomes."""
        self.seq += 1
        message = State(FLEET, self.id, self.incarnation, self.boot, self.seq, counter, slots, **more)
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
            elif kind == "root":
                self.trust = advance_root(self.trust, data)
            elif kind == "site":
                self.trust, _ = accept_site(self.trust, data)
            elif kind == "floor":
                self.trust = accept_floor(self.trust, data)
            elif kind == "desired":
                self.trust, desired = accept_desired(self.trust, data, now)
        return desired, documents


class Fleet:
    """Enrolled fake devices against an open manager, without broker: what would be sent is read from the outbox."""

    def __init__(self, hub: Hub, clock: Clock, names: Sequence[str]) -> None:
        self.hub, self.clock = hub, clock
        self.frames: list[tuple[str, bytes, int]] = []
        self.reopen()
        self.devices = {name: self._enrolled(name) for name in names}

    def reopen(self) -> None:
        """Begin anew on `self.hub`, as after a restart."""
        self.delivery = Delivery(self.hub, lambda topic, payload, qos: self.frames.append((topic, payload, qos)) is None)
        self.ingest = Ingest(self.hub, self.delivery)

    def _enrolled(self, name: str) -> FakeDevice:
        token = Token.decode(register.register(self.hub, "me", name, Wanted({"name": name}))["token"])
        device = FakeDevice(name, Signer.from_seed(name.encode().ljust(32, b".")))
        answer = enrol.redeem(self.hub, device.enrolment(token.secret))
        trust = pin_root(answer["root"].encode(), FLEET, token.root_pin, name, answer["incarnation"])
        device.trust, _ = accept_site(trust, answer["site"].encode())
        return device

    def up(self, name: str, noun: str, payload: bytes) -> None:
        """A message of a device arrives."""
        self.ingest.take(topics.up(name, noun), payload)

    def births(self) -> None:
        """Everybody connects."""
        for name, device in self.devices.items():
            self.up(name, "presence", device.presence())

    def letters(self) -> list[outbox.Letter]:
        """Empty the outbox."""
        with self.hub.store.write() as tx:
            found = outbox.waiting(tx, 1000)
            outbox.sent(tx, [letter.id for letter in found])
        return found

    def deliver(self) -> dict[str, Desired]:
        """Empty the outbox into the devices; the desired documents they believed."""
        believed = {}
        for letter in self.letters():
            parsed = topics.parse(letter.topic)
            assert isinstance(parsed, topics.DeviceTopic)
            device = self.devices[parsed.device]
            if parsed.noun == "cmd":
                assert device.trust
                device.trust, command = accept_command(device.trust, letter.payload)
                device.commands.append(command)
                continue
            desired, _ = device.read(letter.payload, self.clock.now)
            if desired is not None:
                believed[parsed.device] = desired
        return believed

    def publish(self, version: int, **other: Any) -> str:
        """A signed release with its objects; its digest."""
        made = make_release(release_signer(self.hub.layout.root), version, **other)
        for digest, data in made.objects.items():
            self.hub.blobs.put(digest, data, 1 << 30)
        return str(releases.accept(self.hub, "me", made.envelope)["digest"])

    def start(self, version: int = 1, **other: Any) -> str:
        """Start a rollout of `version` to everybody; its id."""
        order = {"model": "digits", "version": version, "to": "all", "waves": "100%", "policy": {"dwell_s": 0}}
        return str(rollouts.create(self.hub, "me", order | other)["id"])

    def report(
        self, name: str, rollout: str, phase: str, release: str, verdict: str = "", runs: str = "", version: int = 1
    ) -> None:
        """A device reports on the rollout of `release`; `runs` is what is committed."""
        report = SlotReport(phase, "digits" if runs else "", version if runs else 0, runs, "", rollout, verdict, target=release)
        device = self.devices[name]
        self.up(name, "state", device.state({"main": report}, device.trust.counter if device.trust else 0))

    def commit(self, name: str, rollout: str, release: str, version: int = 1) -> None:
        """A device goes all the way."""
        self.report(name, rollout, "trial", release)
        self.report(name, rollout, "idle", release, "committed", release, version)

    def show(self, rollout: str) -> dict[str, Any]:
        """The rollout as the API shows it."""
        return rollouts.show(self.hub, rollout)


def seen(hub: Hub, *ids: str) -> dict[str, str]:
    """Who waits for approval with which fingerprint, as an operator sees it: these, or all."""
    return {one["id"]: one["fingerprint"] for one in register.pending(hub) if one["id"] in ids or not ids}
