"""Attacks on the manager from below: what a compromised broker, another device or a thief with a device's key can send up."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from edgeops.manager import enrol
from edgeops.sketch.window import SketchWindow
from edgeops.wire import topics
from edgeops.wire.envelope import seal
from edgeops.wire.keys import Signer
from edgeops.wire.messages import Presence, SlotReport, State, seal_tele

from ..manager.house import FLEET, FakeDevice, Fleet

THIEF = Signer.from_seed(b"t" * 32)


@dataclass
class Scene:
    """A manager with two devices online, a rollout to both that has been ordered, and what devices have said so far."""

    fleet: Fleet
    rollout: str
    release: str
    window: bytes
    born: bytes
    said: bytes

    @property
    def victim(self) -> FakeDevice:
        """The device whose name is abused."""
        return self.fleet.devices["victim"]

    @property
    def other(self) -> FakeDevice:
        """An enrolled device that lies."""
        return self.fleet.devices["other"]

    def state(self, signer: Signer, **changes: Any) -> bytes:
        """The victim reports the rollout committed, signed by `signer`."""
        slots = {"main": SlotReport("idle", "digits", 1, self.release, "base", self.rollout, "committed", target=self.release)}
        state = State(FLEET, "victim", 1, self.victim.boot, 10**6, 1, slots)
        return seal("state", replace(state, **changes).payload(), [signer])

    def renewal(self, device: FakeDevice, signer: Signer) -> bytes:
        """A certificate for a key of `device` in the victim's name, signed by `signer`."""
        return seal("renew", {"fleet": FLEET, "device": "victim", "incarnation": 1, "seq": 9, "csr": device.csr("victim")}, [signer])

    def birth(self, signer: Signer, **changes: Any) -> bytes:
        """The victim is born, signed by `signer`."""
        birth = Presence(FLEET, "victim", 1, "cd" * 16, "birth", "ab" * 32, {"class": "x86-vnni"}, seq=10**6)
        return seal("presence", replace(birth, **changes).payload(), [signer])


@dataclass(frozen=True, slots=True)
class Attack:
    """Something arrives: the manager must count `refused.reason`, and nothing else may happen."""

    id: str
    story: str
    reason: str
    act: Callable[[Scene], tuple[str, bytes]]


def up(noun: str, payload: Callable[[Scene], bytes], device: str = "victim") -> Callable[[Scene], tuple[str, bytes]]:
    """A message on a topic of `device`."""
    return lambda scene: (topics.up(device, noun), payload(scene))


ATTACKS = [
    # a compromised broker: it holds no key and repeats or invents
    Attack("report-forged", "the broker reports success for a device", "unknown-key", up("state", lambda s: s.state(THIEF))),
    Attack("report-replayed", "it repeats a report", "stale-report", up("state", lambda s: s.said)),
    Attack("report-garbage", "it sends bytes", "not-canonical", up("state", lambda s: b"\0" * 100)),
    Attack("report-huge", "it sends half a megabyte and more", "too-large", up("state", lambda s: b" " * (600 << 10))),
    Attack("birth-forged", "it lets a device be born", "unknown-key", up("presence", lambda s: s.birth(THIEF))),
    Attack("birth-replayed", "it brings a silent device back to life with an old birth", "stale-birth", up("presence", lambda s: s.born)),
    Attack("will-forged", "it says that a device is gone", "unknown-key",
           up("presence", lambda s: s.birth(THIEF, kind="gone", nonce="", boot=s.victim.boot))),
    Attack("telemetry-forged", "it invents telemetry that steers a rollout", "bad-signature",
           up("tele", lambda s: seal_tele(s.window, THIEF))),
    Attack("telemetry-bare", "telemetry without a signature", "bad-signature", up("tele", lambda s: s.window)),
    Attack("telemetry-other", "a window of one device under the name of another", "bad-signature",
           up("tele", lambda s: seal_tele(s.window, s.other.identity))),
    Attack("topic-shard", "a topic in the wrong shard", "bad-topic", lambda s: (_elsewhere(), s.state(s.victim.identity))),
    Attack("topic-down", "an order sent up", "bad-topic", lambda s: (topics.down("victim", "desired"), b"x")),
    Attack("topic-broadcast", "a broadcast frame sent to the manager", "bad-topic", lambda s: (topics.frame("all", "a" * 64, 0), b"x")),
    Attack("topic-stranger", "a device that was never registered", "unknown-device", up("state", lambda s: s.state(THIEF), "nobody")),
    Attack("want-garbage", "a want that is none", "not-canonical", up("want", lambda s: b"\0" * 40)),
    # another enrolled device
    Attack("report-as-other", "a device signs a report in the name of another, on its topic", "unknown-key",
           up("state", lambda s: s.state(s.other.identity))),
    Attack("report-renamed", "a device sends the victim's name on its own topic", "wrong-device",
           up("state", lambda s: s.state(s.other.identity), "other")),
    Attack("report-carried", "a report of the victim on another device's topic", "unknown-key",
           up("state", lambda s: s.state(s.victim.identity), "other")),
    Attack("birth-renamed", "a birth in the victim's name on its own topic", "wrong-device",
           up("presence", lambda s: s.birth(s.other.identity), "other")),
    # the device's own key, used wrongly
    Attack("report-older-self", "a report from before the re-flash", "incarnation",
           up("state", lambda s: s.state(s.victim.identity, incarnation=2))),
    Attack("report-other-fleet", "a report of another fleet with the same key", "wrong-device",
           up("state", lambda s: s.state(s.victim.identity, fleet="barn"))),
    Attack("report-absurd", "a counter that would leave the manager no number", "absurd-counter",
           up("state", lambda s: s.state(s.victim.identity, counter=2**53 - 1))),
    Attack("report-confused", "a birth sent as a report", "wrong-type", up("state", lambda s: s.birth(s.victim.identity))),
    Attack("birth-confused", "a report sent as a birth", "wrong-type", up("presence", lambda s: s.state(s.victim.identity))),
    Attack("telemetry-nonsense", "a signed window that is none", "sketch-malformed",
           up("tele", lambda s: seal_tele(b"\xff" * 80, s.victim.identity))),
    Attack("telemetry-absurd", "a window with more calls than a machine can make", "absurd-count",
           up("tele", lambda s: seal_tele(_absurd(s.window), s.victim.identity))),
]  # fmt: skip


def _elsewhere() -> str:
    right = topics.up("victim", "state")
    shard = right.split("/")[2]
    return right.replace(f"/{shard}/", f"/{(int(shard) + 1) % 100:02d}/", 1)


def _absurd(window: bytes) -> bytes:
    found = SketchWindow.from_bytes(window)
    return replace(found, tally=replace(found.tally, calls=2**40)).to_bytes()


@dataclass(frozen=True, slots=True)
class Renewal:
    """A request for a new certificate that must be refused with `reason`."""

    id: str
    story: str
    reason: str
    act: Callable[[Scene], bytes]


RENEWALS = [
    Renewal("renew-forged", "a stranger asks in a device's name", "renew-refused",
            lambda s: s.renewal(s.victim, THIEF)),
    Renewal("renew-other", "a device asks in another's name", "renew-refused",
            lambda s: s.renewal(s.other, s.other.identity)),
    Renewal("renew-nobody", "a device nobody knows asks", "renew-refused", lambda s: FakeDevice("nobody").renewal()),
    Renewal("renew-older-self", "the device before its re-flash asks", "incarnation", lambda s: s.victim.renewal(incarnation=2)),
    Renewal("renew-fleet", "a device of another fleet asks", "incarnation", lambda s: s.victim.renewal(fleet="barn")),
    Renewal("renew-csr", "a signing request that is none", "bad-csr", lambda s: s.victim.renewal(csr="-----BEGIN X-----")),
    Renewal("renew-type", "a report is sent as a renewal", "wrong-type", lambda s: s.state(s.victim.identity)),
]  # fmt: skip


def renew(scene: Scene, sealed: bytes) -> Any:
    """What the manager answers."""
    return enrol.renew(scene.fleet.hub, sealed)
