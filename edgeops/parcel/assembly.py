"""Putting things together again: which frames are there, which objects they complete, and the inline file from its segments.

Pure: `Progress` is a value, the bytes lie with the caller (a sparse file on a device). Nothing is believed without its hash.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from edgeops.wire.errors import Rejected
from edgeops.wire.keys import sha256

from .manifest import Inline
from .stream import StreamList


@dataclass(frozen=True, slots=True)
class Progress:
    """Which frames of a stream have come: bit i of `have` (an int used as a bit set) for frame i."""

    stream: StreamList
    have: int = 0

    @property
    def done(self) -> bool:
        """Whether every frame is there."""
        return self.have == (1 << len(self.stream.frames)) - 1

    @property
    def bytes_done(self) -> int:
        """Bytes received so far."""
        return sum(self.stream.length(i) for i in range(len(self.stream.frames)) if self.have >> i & 1)

    def missing(self) -> bytes:
        """Bitmap for a `Want`: most significant bit first, 1 = missing."""
        bits = bytearray(-(-len(self.stream.frames) // 8))
        for index in range(len(self.stream.frames)):
            if not self.have >> index & 1:
                bits[index // 8] |= 0x80 >> index % 8
        return bytes(bits)


def place(progress: Progress, index: int, data: bytes) -> tuple[Progress, int | None]:
    """Take frame `index`; returns the new progress and the offset to write it at (None: already there).

    Raises Rejected("bad-frame") when the number, length or digest is wrong.
    """
    stream = progress.stream
    if not 0 <= index < len(stream.frames) or len(data) != stream.length(index) or sha256(data) != stream.frames[index]:
        raise Rejected("bad-frame", f"frame {index} is not the one the signed stream list names")
    if progress.have >> index & 1:
        return progress, None
    return replace(progress, have=progress.have | 1 << index), index * stream.frame


def wanted(bits: bytes, frames: int) -> tuple[int, ...]:
    """Frame numbers of a want's bitmap, within a stream of `frames` frames; raises Rejected on another length."""
    if len(bits) != -(-frames // 8):
        raise Rejected("malformed", f"a want of {len(bits)} bytes for {frames} frames")
    return tuple(index for index in range(frames) if bits[index // 8] & 0x80 >> index % 8)


def offsets(stream: StreamList) -> tuple[tuple[str, int, int], ...]:
    """(object digest, start, end) within the assembled stream."""
    result, at = [], 0
    for side in stream.objects:
        result.append((side.sha256, at, at + side.size))
        at += side.size
    return tuple(result)


def check_object(digest: str, size: int, data: bytes) -> None:
    """Raise Rejected("bad-object") unless `data` has this size and SHA-256."""
    if len(data) != size or sha256(data) != digest:
        raise Rejected("bad-object", f"object {digest[:12]} has other bytes than its name says")


def assemble_inline(inline: Inline, skeleton: bytes, tensor: Callable[[str], bytes]) -> bytes:
    """The single-file layout; `tensor(digest)` gives an object's bytes. Raises Rejected when any digest differs."""
    check_object(inline.skeleton.sha256, inline.skeleton.size, skeleton)
    parts, at = [], 0
    for segment in inline.segments:
        if segment.tensor is None:
            parts.append(skeleton[at : at + segment.length])
            at += segment.length
        else:
            body = tensor(segment.tensor)
            check_object(segment.tensor, segment.length, body)
            parts.append(body)
    whole = b"".join(parts)
    check_object(inline.whole.sha256, inline.whole.size, whole)
    return whole
