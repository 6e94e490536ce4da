"""Attacks on a running agent: a real device that serves a model, the documents and frames a thief or a compromised broker can send.

Every row says which keys the attacker holds. The device must count the refusal under the named reason and go on serving.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from edgeops.manager.setup import load_signer
from edgeops.parcel.stream import cut
from edgeops.wire import canonical, envelope
from edgeops.wire.desired import CommandDocument, Desired, Floor, SignedTime, SlotWish
from edgeops.wire.envelope import digest_of, seal
from edgeops.wire.fields import Fields
from edgeops.wire.keys import Signer
from edgeops.wire.messages import Bundle
from edgeops.wire.release import Release
from edgeops.wire.root import Role, Root, Site
from edgeops.wire.trust import Trust, current_root

Sent = tuple[str, bytes]
THIEF = Signer.from_seed(b"t" * 32)


@dataclass(frozen=True)
class Scene:
    """What an attacker may look at: the device's trust, what it was sent, and (where a row says so) keys of the fleet."""

    folder: Path
    trust: Trust
    order: bytes
    older: bytes
    now: int

    def key(self, role: str) -> Signer:
        """A stolen key of the fleet."""
        return load_signer(self.folder / "keys" / f"{role}.key")

    @cached_property
    def online(self) -> Signer:
        """The stolen online key."""
        return self.key("online")

    @property
    def root(self) -> Root:
        """The fleet's root."""
        return current_root(self.trust)

    @property
    def documents(self) -> Mapping[str, bytes]:
        """The documents of the newest order by kind."""
        return dict(Bundle.decode(self.order).documents)

    @property
    def desired(self) -> Desired:
        """The newest order."""
        return Desired.parse(_read(self.documents["desired"], "desired"))

    @property
    def release(self) -> Release:
        """The release it names."""
        return Release.parse(_read(self.documents["release"], "release"))

    def bundle(self, *documents: tuple[str, bytes]) -> Sent:
        """A bundle on the device's `desired` topic."""
        return "desired", Bundle(documents).encode()

    def doc(self, name: str, data: bytes) -> Sent:
        """One document on the device's `doc` topic."""
        return "doc", Bundle(((name, data),)).encode()

    def command(self, **changes: Any) -> Sent:
        """An acknowledgement of everything, honest but for `changes`."""
        document = CommandDocument(
            self.trust.fleet, self.trust.device, self.trust.incarnation, self.root.epoch, self.trust.command + 1, "ack", 1 << 40
        )
        return "cmd", seal("command", replace(document, **changes).payload(), [self.online])

    def forged(self, *signers: Signer, release: bytes = b"", stream: bytes = b"", slots: Any = None, **changes: Any) -> Sent:
        """The newest order once more with the next counter, changed and signed by `signers` (default: the stolen online key)."""
        wish = self.desired.slots["main"]
        if release:
            wish = replace(wish, release=digest_of(release, "release"), rollout="r-thief")
        if stream:
            wish = replace(wish, stream=digest_of(stream, "stream"))
        document = replace(self.desired, counter=self.trust.counter + 1, slots=slots or {"main": wish})
        sealed = seal("desired", replace(document, **changes).payload(), signers or [self.online])
        documents = {**self.documents, "desired": sealed}
        documents |= {name: data for name, data in (("release", release), ("stream", stream)) if data}
        return self.bundle(*((name, documents[name]) for name in ("release", "stream", "desired")))


def _read(data: bytes, name: str) -> Fields:
    return Fields.of(canonical.decode(envelope.split(data, name)[0], name), name)


@dataclass(frozen=True, slots=True)
class Attack:
    """Send `act` to the device: it must count `reason`."""

    id: str
    story: str
    reason: str
    act: Callable[[Scene], Sent]


def own_release(scene: Scene, *signers: Signer, **changes: Any) -> bytes:
    """A release of the thief's own making: a newer version of the same model."""
    return seal("release", replace(scene.release, version=99, **changes).payload(), signers)


def next_root(scene: Scene, *signers: Signer, **changes: Any) -> bytes:
    """A root in which the thief's key has every role."""
    keys = {THIEF.id: THIEF.public} | dict(scene.root.keys)
    roles = {name: Role((THIEF.id,), 1) for name in scene.root.roles}
    root = replace(scene.root, version=scene.root.version + 1, keys=keys, roles=roles)
    return seal("root", replace(root, **changes).payload(), signers)


def moved(scene: Scene, *signers: Signer) -> bytes:
    """A site document that sends the fleet to the thief."""
    pem = (scene.folder / "pki" / "ca.crt").read_text()
    site = Site(scene.trust.fleet, 99, scene.now, (pem,), ("mqtts://thief.example:8883",), ("https://thief.example:8443",))
    return seal("site", site.payload(), signers)


def stream_of(scene: Scene, *signers: Signer) -> bytes:
    """A stream list of other bytes."""
    return seal("stream", cut(scene.trust.fleet, [b"malware" * 100])[0].payload(), signers)


def time_of(scene: Scene, nonce: str, *signers: Signer) -> bytes:
    """A signed time far ahead."""
    time = SignedTime(scene.trust.fleet, scene.trust.device, nonce, scene.now + 10**9, scene.root.epoch, 1)
    return seal("time", time.payload(), signers)


ATTACKS = [
    # a compromised broker: no key at all
    Attack("live-replay-older", "the broker replays the order before", "refused_desired.replay", lambda s: ("desired", s.older)),
    Attack("live-replay-newest", "the broker repeats the newest order", "duplicate_desired", lambda s: ("desired", s.order)),
    Attack("live-unsigned", "an order without any signature", "refused_desired.threshold",
           lambda s: s.bundle(("release", s.documents["release"]), ("desired", _bare(s.forged()[1])))),
    Attack("live-broker-own-key", "the broker signs an order itself", "refused_desired.unknown-key", lambda s: s.forged(THIEF)),
    Attack("live-garbage", "bytes that are no bundle", "refused_message.not-canonical", lambda s: ("desired", b"\x00garbage")),
    Attack("live-endless-bundle", "a bundle of 65 documents", "refused_message.malformed",
           lambda s: ("desired", canonical.encode([["desired", {}, {}]] * 65))),
    Attack("live-huge-message", "a message of three megabytes", "refused_message.too-large", lambda s: ("desired", b"[" + b" " * (3 << 20) + b"]")),
    Attack("live-deep", "arrays nested 100,000 deep", "refused_message.not-canonical", lambda s: ("doc", b"[" * 100_000)),
    Attack("live-wrong-topic", "an order as a command", "refused_message.wrong-type", lambda s: ("cmd", s.documents["desired"])),
    Attack("live-device-document", "a device's own report sent down to it", "refused_state.wrong-type",
           lambda s: s.doc("state", seal("state", {"fleet": s.trust.fleet}, [THIEF]))),
    Attack("live-frame-unknown", "a frame of a stream no order names", "refused_blocks.unknown-stream",
           lambda s: ("blk", bytes(32) + bytes(4) + b"malware")),
    Attack("live-frame-changed", "a frame of the stream it has, other bytes", "refused_blocks.bad-frame",
           lambda s: ("blk", bytes.fromhex(digest_of(s.documents["stream"], "stream")) + bytes(4) + b"malware")),
    Attack("live-frame-beyond", "a frame beyond the end of its stream: endless data", "refused_blocks.bad-frame",
           lambda s: ("blk", bytes.fromhex(digest_of(s.documents["stream"], "stream")) + b"\0\0\xff\xff" + b"x" * 60_000)),
    # a stolen online key
    Attack("live-other-device", "an order made for another device", "refused_desired.wrong-device", lambda s: s.forged(device="other")),
    Attack("live-other-fleet", "an order of another fleet with the same key", "refused_desired.wrong-fleet", lambda s: s.forged(fleet="other")),
    Attack("live-older-self", "an order for the device before it was re-flashed", "refused_desired.incarnation",
           lambda s: s.forged(incarnation=s.trust.incarnation + 1)),
    Attack("live-freeze", "an order that has expired", "refused_desired.expired", lambda s: s.forged(expires=s.now - 10)),
    Attack("live-epoch", "an order of an epoch that never was", "refused_desired.epoch", lambda s: s.forged(epoch=s.root.epoch + 1)),
    Attack("live-must", "an order with a rule the agent cannot know", "refused_desired.must", lambda s: s.forged(must=("obey",))),
    Attack("live-unreleased", "the online key orders what nobody released", "refused_release.unknown-key",
           lambda s: s.forged(release=own_release(s, s.online))),
    Attack("live-own-release", "a release signed by the thief", "refused_release.unknown-key",
           lambda s: s.forged(release=own_release(s, THIEF))),
    Attack("live-mix-and-match", "an order that names one release and brings another", "refused_desired.missing-release",
           lambda s: s.forged(slots={"main": replace(s.desired.slots["main"], release="e" * 64)})),
    Attack("live-no-variant", "a variant that was never signed", "refused_desired.no-variant",
           lambda s: s.forged(slots={"main": replace(s.desired.slots["main"], variant="tuned")})),
    Attack("live-many-slots", "an order for seventeen slots", "refused_desired.malformed",
           lambda s: s.forged(slots={f"s{n}": SlotWish("none") for n in range(17)})),
    Attack("live-online-floor", "the online key lowers a floor", "refused_floor.unknown-key",
           lambda s: s.doc("floor", seal("floor", Floor(s.trust.fleet, 99, {"small": 0}).payload(), [s.online]))),
    Attack("live-online-site", "the online key moves the fleet", "refused_site.unknown-key", lambda s: s.doc("site", moved(s, s.online))),
    Attack("live-online-root", "the online key makes a root", "refused_root.unknown-key",
           lambda s: s.doc("root", next_root(s, s.online, roles=dict(s.root.roles)))),
    Attack("live-time-unasked", "a time nobody asked for", "refused_time.nonce", lambda s: s.doc("time", time_of(s, "ab" * 32, s.online))),
    Attack("live-command-device", "a command for another device", "refused_message.wrong-device", lambda s: s.command(device="other")),
    Attack("live-command-epoch", "a command of another epoch", "refused_message.epoch", lambda s: s.command(epoch=s.root.epoch + 1)),
    Attack("live-command-replay", "an old command", "refused_message.replay", lambda s: s.command(counter=max(1, s.trust.command - 1))),
    # other stolen keys, and the thief's own
    Attack("live-release-key-orders", "a stolen release key steers a device", "refused_desired.unknown-key", lambda s: s.forged(s.key("release"))),
    Attack("live-site-key-orders", "a stolen site key steers a device", "refused_desired.unknown-key", lambda s: s.forged(s.key("site"))),
    Attack("live-root-key-orders", "a stolen root key steers a device directly", "refused_desired.unknown-key", lambda s: s.forged(s.key("root"))),
    Attack("live-site-stranger", "a stranger moves the fleet", "refused_site.unknown-key", lambda s: s.doc("site", moved(s, THIEF))),
    Attack("live-root-stranger", "a stranger's root, signed by the new keys only", "refused_root.threshold",
           lambda s: s.doc("root", next_root(s, THIEF))),
    Attack("live-root-skip", "root n+2 with the stolen root key", "refused_root.root-version",
           lambda s: s.doc("root", next_root(s, THIEF, s.key("root"), version=s.root.version + 2))),
    Attack("live-stream-stranger", "a stream list signed by a stranger", "refused_stream.unknown-key",
           lambda s: s.doc("stream", stream_of(s, THIEF))),
    Attack("live-type-confusion", "a stream list, truly signed, relabelled as an order", "refused_desired.bad-signature",
           lambda s: ("desired", canonical.encode([["desired", *envelope.apart(s.documents["stream"], "stream")]]))),
]  # fmt: skip


def _bare(bundle: bytes) -> bytes:
    """The order of a bundle without its signatures."""
    outer = json.loads(dict(Bundle.decode(bundle).documents)["desired"])
    return canonical.encode(outer | {"signatures": []})


def attacks() -> Iterator[Attack]:
    """All rows."""
    yield from ATTACKS
