"""MQTT topics, built and read in one place (docs/architecture.md lists them). Six slashes at most."""

import hashlib
from dataclasses import dataclass

from .errors import Misuse, Rejected
from .fields import ID

PREFIX = "e/1"
SHARDS = 64
DOWN = ("desired", "doc", "cmd", "blk")
UP = ("state", "presence", "tele", "want", "ack", "log")
FRAME_BYTES = 60 << 10


@dataclass(frozen=True, slots=True)
class DeviceTopic:
    """A device's topic taken apart: direction `dn` or `up` and the noun."""

    device: str
    direction: str
    noun: str


@dataclass(frozen=True, slots=True)
class FrameTopic:
    """A broadcast frame's topic taken apart; `stream` is the digest of a stream list."""

    channel: str
    stream: str
    frame: int


def shard(device: str) -> str:
    """The two-digit shard of a device id: SHA-256 of it modulo 64."""
    return f"{int.from_bytes(hashlib.sha256(device.encode()).digest()[:8]) % SHARDS:02d}"


def down(device: str, noun: str) -> str:
    """Topic from the manager to `device`; raises Misuse for a bad id or noun."""
    return _device(device, "dn", noun, DOWN)


def up(device: str, noun: str) -> str:
    """Topic from `device` to the manager; raises Misuse for a bad id or noun."""
    return _device(device, "up", noun, UP)


def _device(device: str, direction: str, noun: str, nouns: tuple[str, ...]) -> str:
    if not ID.fullmatch(device) or noun not in nouns:
        raise Misuse("bad-topic", f"no topic {direction}/{noun} of device {device!r}")
    return f"{PREFIX}/{shard(device)}/d/{device}/{direction}/{noun}"


def frame(channel: str, stream: str, index: int) -> str:
    """Topic of one broadcast frame."""
    if not ID.fullmatch(channel) or not ID.fullmatch(stream) or index < 0:
        raise Misuse("bad-topic", f"no frame topic {channel!r}/{stream!r}/{index}")
    return f"{PREFIX}/b/{channel}/{stream}/{index}"


def downs_of(device: str) -> str:
    """The filter a device subscribes to for all that is meant for it."""
    return f"{PREFIX}/{shard(device)}/d/{device}/dn/+"


def frames_of(channel: str, stream: str) -> str:
    """The filter of all frames of one stream."""
    return f"{PREFIX}/b/{channel}/{stream}/+"


ALL_UPS = f"{PREFIX}/+/d/+/up/+"
AUDIT = f"{PREFIX}/audit"  # the newest checkpoint of the audit log, retained; devices may not read it


def parse(topic: str) -> DeviceTopic | FrameTopic:
    """Take a topic apart; raises Rejected("bad-topic")."""
    parts = topic.split("/")
    if len(parts) == 7 and parts[:2] == PREFIX.split("/") and parts[3] == "d" and ID.fullmatch(parts[4]):
        known = {"dn": DOWN, "up": UP}.get(parts[5], ())
        if parts[6] in known and parts[2] == shard(parts[4]):
            return DeviceTopic(parts[4], parts[5], parts[6])
    if len(parts) == 6 and parts[:3] == [*PREFIX.split("/"), "b"] and ID.fullmatch(parts[3]) and ID.fullmatch(parts[4]):
        number = parts[5]
        if number.isascii() and number.isdigit() and len(number) <= 6 and str(int(number)) == number:
            return FrameTopic(parts[3], parts[4], int(number))
    raise Rejected("bad-topic", f"not one of our topics: {topic[:128]!r}")
