"""Stream lists and frames: some objects laid end to end, cut into frames of at most 60 KiB, each with its digest.

The manager signs the list; its digest names the stream, so a device knows a bad frame at once. `enc` is reserved.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.fields import HEX64, ID, Fields
from edgeops.wire.keys import sha256
from edgeops.wire.release import Side
from edgeops.wire.topics import FRAME_BYTES

from .manifest import MAX_OBJECTS, MAX_TOTAL

MAX_FRAMES = 15_000


@dataclass(frozen=True, slots=True)
class StreamList:
    """Objects in order, the frame size in bytes, and one hex digest per frame."""

    fleet: str
    frame: int
    objects: tuple[Side, ...]
    frames: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all objects."""
        return sum(side.size for side in self.objects)

    def length(self, index: int) -> int:
        """Bytes in frame `index`."""
        return min(self.frame, self.size - index * self.frame)

    def check_size(self, most: int) -> None:
        """Raise Rejected("endless") for more than `most` bytes: the list is signed by the online key alone, that limit is not."""
        if self.size > most:
            raise Rejected("endless", f"the stream list holds {self.size} bytes, the signed release says at most {most}")

    def payload(self) -> dict[str, Any]:
        """The JSON payload."""
        return {
            "fleet": self.fleet, "frame": self.frame, "objects": [side.payload() for side in self.objects],
            "frames": list(self.frames),
        }  # fmt: skip

    @staticmethod
    def parse(fields: Fields) -> "StreamList":
        """Read a stream list within the limits; raises Rejected."""
        if "enc" in fields.data:
            raise Rejected("encrypted", "this stream is encrypted, which this agent does not know; update the agent")
        objects = tuple(Side.parse(Fields.of(item, "stream.objects")) for item in fields.items("objects", MAX_OBJECTS))
        found = StreamList(fields.text("fleet", ID), fields.number("frame", 1), objects, fields.texts("frames", HEX64, MAX_FRAMES))
        if found.frame > FRAME_BYTES or found.size > MAX_TOTAL:
            raise Rejected("too-large", f"stream of {found.size} bytes in frames of {found.frame}")
        if len(found.frames) != -(-found.size // found.frame):
            raise Rejected("malformed", f"stream: {len(found.frames)} frames do not hold {found.size} bytes")
        return found


def cut(fleet: str, bodies: Iterable[bytes], frame: int = FRAME_BYTES) -> tuple[StreamList, tuple[bytes, ...]]:
    """The stream list of `bodies` and its frames; raises Misuse("too-large") when no device would take it as one stream."""
    parts = list(bodies)
    if len(parts) > MAX_OBJECTS or sum(map(len, parts)) > MAX_FRAMES * frame or not 0 < frame <= FRAME_BYTES:
        raise Misuse("too-large", f"{len(parts)} objects of {sum(map(len, parts))} bytes do not fit one stream; split them")
    whole = b"".join(parts)
    frames = tuple(whole[at : at + frame] for at in range(0, len(whole), frame))
    objects = tuple(Side(sha256(body), len(body)) for body in parts)
    return StreamList(fleet, frame, objects, tuple(sha256(piece) for piece in frames)), frames
