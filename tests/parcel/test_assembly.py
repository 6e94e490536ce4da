"""Manifests, streams, frames, bitmaps and assembly: round trips, and everything that must be refused."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeops.parcel.assembly import Progress, assemble_inline, check_object, offsets, place, wanted
from edgeops.parcel.manifest import MAX_OBJECTS, Inline, Manifest, Segment
from edgeops.parcel.stream import MAX_FRAMES, StreamList, cut
from edgeops.wire import canonical, envelope
from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.fields import Fields
from edgeops.wire.keys import Signer, sha256
from edgeops.wire.release import Side
from edgeops.wire.topics import FRAME_BYTES

SIGNER = Signer.from_seed(bytes(32))
bodies = st.lists(st.binary(max_size=60), max_size=6)
sizes = st.integers(1, 20)


def side(body: bytes) -> Side:
    """The side object of some bytes."""
    return Side(sha256(body), len(body))


def build(skeleton: bytes, tensors: list[bytes]) -> tuple[Manifest, bytes]:
    """A manifest with both layouts, and the inline file: skeleton bytes around and between the tensors."""
    step = max(1, len(skeleton) // (len(tensors) + 1))
    segments, whole, at = [], b"", 0
    for body in tensors:
        segments += [Segment(len(skeleton[at : at + step])), Segment(len(body), sha256(body))]
        whole += skeleton[at : at + step] + body
        at += len(skeleton[at : at + step])
    segments.append(Segment(len(skeleton) - at))
    whole += skeleton[at:]
    inline = Inline(side(whole), side(skeleton), tuple(segments))
    made = tuple(side(body) for body in tensors)
    return Manifest(side(b"external" + skeleton), made, side(b"golden" + skeleton), side(b"reference" + skeleton), inline), whole


SKELETON, TENSORS = b"skeleton bytes", [b"first tensor", b"second"]
MANIFEST, WHOLE = build(SKELETON, TENSORS)
BY_DIGEST = {sha256(body): body for body in TENSORS}


@given(st.binary(max_size=50), st.lists(st.binary(max_size=40), max_size=5, unique=True))
def test_manifest_and_inline_round_trip(skeleton: bytes, tensors: list[bytes]) -> None:
    """A manifest reads back the same, and its inline layout comes together to the digest it promises."""
    manifest, whole = build(skeleton, tensors)
    assert Manifest.decode(manifest.encode()) == manifest
    bare = replace(manifest, inline=None, reference=None)
    assert Manifest.decode(bare.encode()) == bare
    assert manifest.size - bare.size == len(b"reference" + skeleton)
    assert manifest.inline is not None
    assert assemble_inline(manifest.inline, skeleton, {sha256(body): body for body in tensors}.__getitem__) == whole


def spoil(change: Callable[[Any], Any]) -> bytes:
    """The encoded manifest with its JSON changed in place."""
    body = canonical.decode(MANIFEST.encode())
    change(body)
    return canonical.encode(body)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.update(format=2), "manifest-format"),
        (lambda m: m.pop("skeleton"), "malformed"),
        (lambda m: m.pop("golden"), "malformed"),
        (lambda m: m.update(golden=None), "malformed"),
        (lambda m: m.update(reference=None), "malformed"),
        (lambda m: m["golden"].update(sha256="zz"), "malformed"),
        (lambda m: m["golden"].update(m["tensors"][0]), "malformed"),
        (lambda m: m["reference"].update(m["golden"]), "malformed"),
        (lambda m: m["reference"].pop("size"), "malformed"),
        (lambda m: m["tensors"].append(m["tensors"][0]), "malformed"),
        (lambda m: m["tensors"].append(m["skeleton"]), "malformed"),
        (lambda m: m["tensors"][0].update(sha256="zz"), "malformed"),
        (lambda m: m["tensors"][0].update(size=-1), "malformed"),
        (lambda m: m["tensors"][0].update(size=(512 << 20) + 1), "malformed"),
        (lambda m: m["tensors"].extend({"sha256": f"{n:064x}", "size": 512 << 20} for n in range(4)), "too-large"),
        (lambda m: m["tensors"].extend({"sha256": f"{n:064x}", "size": 1} for n in range(MAX_OBJECTS)), "malformed"),
        (lambda m: m["inline"]["segments"].append([1]), "malformed"),
        (lambda m: m["inline"]["segments"].append(7), "malformed"),
        (lambda m: m["inline"]["segments"].append([]), "malformed"),
        (lambda m: m["inline"]["segments"].append([5, "f" * 64]), "malformed"),
        (lambda m: m["inline"]["segments"][1].__setitem__(0, 1), "malformed"),
        (lambda m: m["inline"]["segments"].pop(0), "malformed"),
        (lambda m: m["inline"]["whole"].update(size=1), "malformed"),
        (lambda m: m["inline"].pop("whole"), "malformed"),
    ],
)
def test_bad_manifest_is_rejected(change: Callable[[Any], Any], reason: str) -> None:
    """Each way in which a manifest can lie about its objects or its segments is Rejected."""
    with pytest.raises(Rejected) as caught:
        Manifest.decode(spoil(change))
    assert caught.value.reason == reason


@given(st.integers(0, 2000), st.integers(0, 255))
def test_damaged_manifest_is_rejected_or_read(at: int, byte: int) -> None:
    """A manifest with a byte changed raises nothing but Rejected."""
    data = MANIFEST.encode()
    at %= len(data)
    try:
        Manifest.decode(data[:at] + bytes([byte]) + data[at + 1 :])
    except Rejected:
        return


def test_inline_assembly_believes_nothing() -> None:
    """A wrong skeleton, a wrong tensor, a short tensor and a wrong whole are each Rejected."""
    inline = MANIFEST.inline
    assert inline is not None
    assert assemble_inline(inline, SKELETON, BY_DIGEST.__getitem__) == WHOLE
    for bad in (
        lambda: assemble_inline(inline, SKELETON[:-1] + b"?", BY_DIGEST.__getitem__),
        lambda: assemble_inline(inline, SKELETON, lambda digest: BY_DIGEST[digest][::-1]),
        lambda: assemble_inline(inline, SKELETON, lambda digest: BY_DIGEST[digest][1:]),
        lambda: assemble_inline(replace(inline, whole=side(b"x" * len(WHOLE))), SKELETON, BY_DIGEST.__getitem__),
        lambda: assemble_inline(replace(inline, segments=inline.segments[::-1]), SKELETON, BY_DIGEST.__getitem__),
        lambda: check_object(sha256(b"x"), 2, b"x"),
    ):
        with pytest.raises(Rejected, match="bad-object"):
            bad()


@given(bodies, sizes)
def test_stream_round_trip(parts: list[bytes], frame: int) -> None:
    """A stream list survives signature and parse; its frames and its offsets give back every object."""
    stream, frames = cut("orchard", parts, frame)
    data = envelope.seal("stream", stream.payload(), [SIGNER])
    assert StreamList.parse(envelope.open_sealed(data, "stream", {SIGNER.id: SIGNER.public}, 1).fields) == stream
    whole = b"".join(frames)
    assert [whole[start:end] for _, start, end in offsets(stream)] == parts
    assert [len(piece) for piece in frames] == [stream.length(i) for i in range(len(frames))]


@given(bodies, sizes, st.randoms(use_true_random=False))
def test_frames_in_any_order(parts: list[bytes], frame: int, order: random.Random) -> None:
    """Frames that come late, twice, in any order and mixed with bad ones make the whole, and the bitmap is right all the way."""
    stream, frames = cut("orchard", parts, frame)
    disk, progress = bytearray(stream.size), Progress(stream)
    arrivals = [*range(len(frames)), *order.choices(range(len(frames)), k=len(frames))] if frames else []
    order.shuffle(arrivals)
    seen: set[int] = set()
    for index in arrivals:
        bad = bytes([frames[index][0] ^ 1]) + frames[index][1:]
        for number, data in ((index, bad), (index, frames[index] + b"x"), (len(frames), frames[index]), (-1, frames[index])):
            with pytest.raises(Rejected, match="bad-frame"):
                place(progress, number, data)
        progress, at = place(progress, index, frames[index])
        assert (at is None) == (index in seen)
        if at is not None:
            disk[at : at + len(frames[index])] = frames[index]
        seen.add(index)
        assert set(wanted(progress.missing(), len(frames))) == set(range(len(frames))) - seen
        assert progress.bytes_done == sum(len(frames[i]) for i in seen)
        assert progress.done == (len(seen) == len(frames))
    assert progress.done
    assert bytes(disk) == b"".join(parts)


@given(st.binary(max_size=12), st.integers(0, 100))
def test_bitmaps(bits: bytes, frames: int) -> None:
    """A bitmap names frames inside the stream only, and one of another length is Rejected."""
    if len(bits) == -(-frames // 8):
        assert all(0 <= index < frames for index in wanted(bits, frames))
    else:
        with pytest.raises(Rejected, match="malformed"):
            wanted(bits, frames)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"enc": "aes"}, "encrypted"),
        ({"enc": None}, "encrypted"),
        ({"frame": FRAME_BYTES + 1}, "too-large"),
        ({"frame": 0}, "malformed"),
        ({"frames": ["a" * 64]}, "malformed"),
        ({"frames": ["A" * 64, "b" * 64]}, "malformed"),
        ({"objects": []}, "malformed"),
        ({"objects": [{"sha256": "a" * 64, "size": 512 << 20}] * 4}, "too-large"),
        ({"objects": 3}, "malformed"),
        ({"fleet": "a/b"}, "malformed"),
    ],
)
def test_bad_stream_is_rejected(changes: dict[str, Any], reason: str) -> None:
    """Each way in which a stream list can lie or go beyond the limits is Rejected."""
    stream, _ = cut("orchard", [b"x" * 30], 20)
    with pytest.raises(Rejected) as caught:
        StreamList.parse(Fields.of(stream.payload() | changes, "stream"))
    assert caught.value.reason == reason


def test_the_longest_stream_can_be_signed_and_read() -> None:
    """As many frames as the limit allows fit into one signed list; what does not fit is Misuse where it is cut."""
    stream = StreamList("orchard", 1, (Side("a" * 64, MAX_FRAMES),), ("b" * 64,) * MAX_FRAMES)
    data = envelope.seal("stream", stream.payload(), [SIGNER])
    assert StreamList.parse(envelope.open_sealed(data, "stream", {SIGNER.id: SIGNER.public}, 1).fields) == stream
    for parts, frame in (([b"x" * (MAX_FRAMES + 1)], 1), ([b""] * (MAX_OBJECTS + 1), 1), ([b"x"], FRAME_BYTES + 1), ([b"x"], 0)):
        with pytest.raises(Misuse, match="too-large"):
            cut("orchard", parts, frame)
