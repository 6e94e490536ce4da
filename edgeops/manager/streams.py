"""Streams: the objects of one variant end to end, cut into frames, the list signed with the online key. One per variant."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from edgeops.parcel.assembly import offsets
from edgeops.parcel.manifest import Manifest
from edgeops.parcel.stream import StreamList, cut
from edgeops.store import Blobs, rows
from edgeops.store.tables import streams
from edgeops.wire import envelope
from edgeops.wire.release import Side, Variant

from .hub import Hub


@dataclass(frozen=True, slots=True)
class Stream:
    """A signed stream list and its digest."""

    digest: str
    list: StreamList
    envelope: bytes


def objects_of(variant: Variant, manifest: Manifest) -> tuple[Side, ...]:
    """What a device fetches for a variant, in the order of the stream."""
    return (variant.manifest, *manifest.objects)


def ensure(hub: Hub, tx: Connection, release: str, name: str, variant: Variant) -> str:
    """The digest of the stream of a variant, cutting and signing it the first time."""
    row = rows.get(tx, streams, release=release, variant=name)
    if row is not None:
        return str(row["digest"])
    manifest = Manifest.decode(hub.blobs.read(variant.manifest.sha256))
    bodies = (hub.blobs.read(side.sha256) for side in objects_of(variant, manifest))
    listed, _ = cut(hub.settings.fleet, bodies)
    sealed = envelope.seal("stream", listed.payload(), [hub.online])
    digest = envelope.digest_of(sealed, "stream")
    rows.put(
        tx, streams, digest=digest, release=release, variant=name, envelope=sealed, published=0, repaired=0, bytes_sent=0
    )
    return digest


def reseal(hub: Hub, tx: Connection) -> None:
    """Sign every list anew that another online key has signed; their digests stay."""
    online = hub.online
    for row in rows.find(tx, streams):
        if envelope.signers_of(row["envelope"], "stream") != {online.id}:
            payload = envelope.contents(row["envelope"], "stream").data
            rows.change(tx, streams, {"digest": row["digest"]}, envelope=envelope.seal("stream", payload, [online]))


def load(tx: Connection, digest: str) -> Stream | None:
    """A stream by its digest, None when there is none."""
    row = rows.get(tx, streams, digest=digest)
    if row is None:
        return None
    fields = envelope.contents(row["envelope"], "stream")
    return Stream(digest, StreamList.parse(fields), row["envelope"])


def frame_bytes(blobs: Blobs, stream: StreamList, index: int) -> bytes:
    """The bytes of one frame, read from the objects it covers."""
    start = index * stream.frame
    end = start + stream.length(index)
    parts = []
    for digest, begin, stop in offsets(stream):
        if begin < end and stop > start:
            first = max(start, begin)
            parts.append(blobs.read(digest, first - begin, min(end, stop) - first))
    return b"".join(parts)


def counts(tx: Connection, digest: str) -> Mapping[str, Any]:
    """What was sent of a stream: frames published to all, frames repaired to one, bytes."""
    row = rows.get(tx, streams, digest=digest)
    if row is None:
        return {}
    loaded = load(tx, digest)
    return {
        "stream": digest, "variant": row["variant"], "frames": len(loaded.list.frames) if loaded else 0,
        "bytes": loaded.list.size if loaded else 0, "published": row["published"], "repaired": row["repaired"],
        "bytes_sent": row["bytes_sent"],
    }  # fmt: skip
