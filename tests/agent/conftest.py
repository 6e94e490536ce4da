"""A small fleet on paper: keys, a root, releases, desired documents, all signed for real."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from edgeops.parcel.stream import cut
from edgeops.wire.desired import CommandDocument, Desired, SignedTime, SlotWish
from edgeops.wire.envelope import digest_of, seal
from edgeops.wire.keys import Signer
from edgeops.wire.release import Release, Side, Tensor, Variant
from edgeops.wire.root import ROLES, Role, Root, Site
from edgeops.wire.trust import Capabilities, Trust, current_root

NOW = 1_800_000_000
CA = "-----BEGIN CERTIFICATE-----"
SIDE = Side("d" * 64, 10)


def make_release(version: int = 1, classes: tuple[str, ...] = ("any",), **changes: Any) -> Release:
    """A release of model `digits`."""
    variant = Variant(classes, {}, SIDE, 30)
    tensor = Tensor("x", "float32", (-1, 64))
    answer = Tensor("y", "float32", (-1, 10))
    release = Release("berlin", "model", "digits", version, NOW, (tensor,), (answer,), 9, 17, "1.20", {"int8": variant}, {})
    return replace(release, **changes)


@dataclass
class Paper:
    """Everything a manager and a publisher would sign with."""

    keys: dict[str, Signer] = field(
        default_factory=lambda: {role: Signer.from_seed(bytes([index]) * 32) for index, role in enumerate(ROLES)}
    )
    device: Capabilities = field(default_factory=lambda: Capabilities("x86-novnni", (1, 32)))

    @property
    def trust(self) -> Trust:
        """A device's first trust."""
        keys = {signer.id: signer.public for signer in self.keys.values()}
        root = Root("berlin", 1, 0, NOW - 1000, keys, {role: Role((self.keys[role].id,), 1) for role in ROLES})
        return Trust("berlin", "pi-01", 1, seal("root", root.payload(), [self.keys["root"]]))

    def release(self, release: Release) -> tuple[str, bytes]:
        """(digest, envelope)."""
        data = seal("release", release.payload(), [self.keys["release"]])
        return digest_of(data, "release"), data

    def stream(self, size: int = 10) -> tuple[str, bytes]:
        """(digest, envelope) of a stream list of one object of so many bytes."""
        data = seal("stream", cut("berlin", [b"x" * size])[0].payload(), [self.keys["online"]])
        return digest_of(data, "stream"), data

    def desired(self, counter: int, release: str, **changes: Any) -> bytes:
        """A desired document that runs `release` in slot main."""
        wish = SlotWish("run", release, "int8", "", "r1") if release else SlotWish("none", rollout="r1")
        document = Desired("berlin", "pi-01", 1, 0, counter, NOW, NOW + 1000, {"main": wish})
        return seal("desired", replace(document, **changes).payload(), [self.keys["online"]])

    def ack(self, counter: int, report: int, epoch: int = 0) -> bytes:
        """A command that acknowledges all reports up to `report`."""
        document = CommandDocument("berlin", "pi-01", 1, epoch, counter, "ack", report)
        return seal("command", document.payload(), [self.keys["online"]])

    def time(self, nonce: str, now: int = NOW, counter: int = 0) -> bytes:
        """A signed time."""
        return seal("time", SignedTime("berlin", "pi-01", nonce, now, 0, counter).payload(), [self.keys["online"]])

    def next_root(self, epoch: int) -> bytes:
        """Root 2 with the same keys, issued a little after the first."""
        root = replace(current_root(self.trust), version=2, epoch=epoch, issued=NOW - 500)
        return seal("root", root.payload(), [self.keys["root"]])

    def site(self, version: int, **changes: Any) -> bytes:
        """A site document."""
        site = Site("berlin", version, NOW, (CA,), ("mqtts://one:8883",), ("https://one:8443",))
        return seal("site", replace(site, **changes).payload(), [self.keys["site"]])


@pytest.fixture
def paper() -> Paper:
    """A fresh fleet on paper."""
    return Paper()
