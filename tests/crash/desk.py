"""The manager's side for one device, in memory: models that are signed for real, orders, answers; and what the device has told it.

What a device has told may never be taken back by it, so the desk is also where that is found out.
"""

import copy
import functools
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from edgeops.manager import pki
from edgeops.parcel.assembly import wanted
from edgeops.parcel.manifest import Manifest
from edgeops.parcel.stream import StreamList, cut
from edgeops.wire import topics
from edgeops.wire.conditions import Conditions
from edgeops.wire.desired import CommandDocument, Desired, Floor, SignedTime, SlotWish, Trial
from edgeops.wire.envelope import contents, digest_of, seal
from edgeops.wire.keys import Signer, private_pem, sha256
from edgeops.wire.messages import Bundle, Want
from edgeops.wire.release import Release, Side, Tensor, Variant
from edgeops.wire.root import ROLES, Role, Root, Site
from edgeops.wire.trust import Trust

NOW = 1_800_000_000
FLEET, NAME, FRAME = "berlin", "pi-01", 1500
BAD = 3
"""The version that fails its trial."""
KEYS = {role: Signer.from_seed(bytes([index]) * 32) for index, role in enumerate(ROLES)}
IDENTITY = Signer.from_seed(b"i" * 32)


class Violation(AssertionError):
    """A device has lost something, runs what it must not run, or cannot go on."""


@dataclass(frozen=True, slots=True)
class Model:
    """One signed version: its documents, its objects by digest, the frames of its stream."""

    version: int
    digest: str
    release: bytes
    stream: str
    listed: bytes
    plan: StreamList
    frames: tuple[bytes, ...]
    objects: dict[str, bytes]


@functools.cache
def model(version: int) -> Model:
    """Version `version`; one tensor is the same in all of them."""
    bodies = [f"{what} {version} ".encode() * 120 for what in ("golden", "skeleton", "tensor")] + [b"shared" * 300]
    golden, skeleton, *tensors = (Side(sha256(body), len(body)) for body in bodies)
    manifest = Manifest(skeleton, tuple(tensors), golden).encode()
    parts = [manifest, *bodies]
    plan, frames = cut(FLEET, parts, FRAME)
    variant = Variant(("any",), {}, Side(sha256(manifest), len(manifest)), plan.size)
    tensor = Tensor("x", "float32", (-1, 4))
    release = Release(FLEET, "model", "m", version, NOW, (tensor,), (tensor,), 9, 17, "1.20", {"fp32": variant}, {})
    sealed, listed = seal("release", release.payload(), [KEYS["release"]]), seal("stream", plan.payload(), [KEYS["online"]])
    objects = {sha256(part): part for part in parts}
    return Model(version, digest_of(sealed, "release"), sealed, digest_of(listed, "stream"), listed, plan, frames, objects)


@functools.cache
def first_trust() -> Trust:
    """What a device is enrolled with."""
    keys = {signer.id: signer.public for signer in KEYS.values()}
    root = Root(FLEET, 1, 0, NOW - 1000, keys, {role: Role((KEYS[role].id,), 1) for role in ROLES})
    return Trust(FLEET, NAME, 1, seal("root", root.payload(), [KEYS["root"]]))


@functools.cache
def papers() -> tuple[bytes, bytes, bytes]:
    """Site document, TLS key and certificate of the device, PEM."""
    ca, key = pki.make_ca(FLEET, NOW), ec.derive_private_key(7, ec.SECP256R1())
    certificate = pki.certify(ca, NAME, key.public_key(), NOW, 30).public_bytes(Encoding.PEM)
    site = Site(FLEET, 1, NOW, (ca.certificate_pem.decode(),), ("mqtts://one:8883",), ("https://one:8443",))
    return seal("site", site.payload(), [KEYS["site"]]), private_pem(key), certificate


@dataclass
class Desk:
    """`orders` are versions, the n-th under order n. All else is what the device has told: numbers, outcomes, what it tried.

    `wrong` says that it has taken something back. It is not raised where it is found: an agent survives whatever is raised in it.
    """

    orders: list[int] = field(default_factory=list)
    command: int = 0
    boots: int = 0
    told: dict[str, int] = field(default_factory=lambda: {"counter": 0, "command": 0, "floor": 0, "seq": 0})
    stored: dict[int, str] = field(default_factory=dict)
    passed: list[int] = field(default_factory=list)
    wrong: str = ""
    conditions: ClassVar[Conditions] = Conditions()

    def copy(self) -> "Desk":
        """As it is now."""
        return copy.deepcopy(self)

    def key(self) -> str:
        """Everything, as text."""
        return repr(asdict(self))

    @property
    def committed(self) -> int:
        """The version of the newest commit that the device has told of, 0 for none."""
        return next((self.orders[order - 1] for order in sorted(self.stored, reverse=True) if "commit" in self.stored[order]), 0)

    def may_run(self) -> set[int]:
        """What may run on a device that has heard nothing since: what it has told of, or what has passed its trial since."""
        if not self.committed:
            return {0, *self.passed}
        newest = max(order for order, verdict in self.stored.items() if "commit" in verdict)
        return {self.committed, *(version for version in self.passed if version in self.orders[newest:])}

    def order(self, version: int) -> tuple[str, bytes]:
        """The next order, as it goes down."""
        self.orders.append(version)
        return self._order()

    def _order(self, *before: tuple[str, bytes]) -> tuple[str, bytes]:
        counter = len(self.orders)
        if not counter:
            return "doc", Bundle(before).encode()
        made = model(self.orders[-1])
        wish = SlotWish("run", made.digest, "fp32", made.stream, f"r{counter}", Trial(window_s=1), conditions=self.conditions)
        desired = Desired(FLEET, NAME, 1, 0, counter, NOW, NOW + 10**8, {"main": wish})
        floor = Floor(FLEET, counter, {"m": max(1, counter // 2)})
        return "desired", Bundle((
            *before, ("floor", seal("floor", floor.payload(), [KEYS["release"]])), ("stream", made.listed),
            ("release", made.release), ("desired", seal("desired", desired.payload(), [KEYS["online"]])),
        )).encode()  # fmt: skip

    def hear(self, topic: str, payload: bytes) -> list[tuple[str, bytes]]:
        """What the device says; the answers, by noun."""
        noun = topic.rpartition("/")[2]
        if noun == "presence":
            return self._present(contents(payload, "presence").data)
        if noun == "state":
            return self._report(contents(payload, "state").data)
        if noun == "want":
            return self._wanted(Want.decode(payload))
        return []

    def _present(self, said: dict[str, Any]) -> list[tuple[str, bytes]]:
        if said["kind"] != "birth":
            return []
        self._note("seq", int(said["seq"]) - 1)
        self.told["seq"] = int(said["seq"])
        signed = SignedTime(FLEET, NAME, str(said["nonce"]), NOW + 1, 0, len(self.orders))
        return [self._order(("time", seal("time", signed.payload(), [KEYS["online"]])))]

    def _report(self, said: dict[str, Any]) -> list[tuple[str, bytes]]:
        self._note("seq", int(said["seq"]) - 1)
        self.told["seq"] = int(said["seq"])
        for name, number in (("counter", said["counter"]), ("command", said["command"]), ("floor", said["documents"]["floor"])):
            self._note(name, int(number))
        for outcome in said["outcomes"]:
            known = self.stored.setdefault(int(outcome["order"]), str(outcome["verdict"]))
            if known != outcome["verdict"] and outcome["verdict"] == "failed" and not outcome["rollout"]:
                self.stored[int(outcome["order"])] = "failed"  # committed, and damaged since
            elif known != outcome["verdict"]:
                self.wrong = f"order {outcome['order']} had ended {known}, now it is {outcome['verdict']}: {outcome['reason']}"
        if not said["outcomes"]:
            return []
        self.command += 1
        ack = CommandDocument(FLEET, NAME, 1, 0, self.command, "ack", int(said["seq"]))
        return [("cmd", seal("command", ack.payload(), [KEYS["online"]]))]

    def _note(self, name: str, number: int) -> None:
        if number < self.told[name]:
            self.wrong = f"{name} {number} is told after {self.told[name]}"
        self.told[name] = number

    def _wanted(self, want: Want) -> list[tuple[str, bytes]]:
        made = next(made for made in map(model, self.orders) if made.stream == want.stream)
        head = bytes.fromhex(made.stream)
        return [("blk", head + at.to_bytes(4) + made.frames[at]) for at in wanted(want.bits, len(made.frames))]


def down(noun: str) -> str:
    """The topic that a device hears."""
    return topics.down(NAME, noun)
