"""What a straw keeps. Bytes are shared by all straws of a process under their SHA-256; who has received what is each one's own."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, MutableMapping
from pathlib import Path
from typing import Protocol

from edgeops.parcel.assembly import Progress, check_object, offsets, place
from edgeops.parcel.stream import StreamList
from edgeops.wire.errors import Rejected, Unfit
from edgeops.wire.release import Side

from ..core.record import Record
from ..core.slot import Build
from ..shell import builds


class Folder(Protocol):
    """What is one straw's alone and outlives a power cut; a `StateFolder` is one."""

    def load(self) -> Record:
        """The newest valid record."""

    def save(self, record: Record) -> None:
        """Keep a record; durable on return."""

    def document(self, digest: str) -> bytes:
        """A kept document; raises Rejected("missing-document")."""

    def put_document(self, digest: str, data: bytes) -> None:
        """Keep a signed document under the digest of its payload."""

    def sweep(self, objects: Iterable[str], documents: Iterable[str]) -> int:
        """Delete what is not named."""


class Files(MutableMapping[str, bytes]):
    """Bytes in a folder, one file per name. Nothing is synced: whoever reads them checks their hash."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def __getitem__(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            raise KeyError(name) from None

    def __setitem__(self, name: str, data: bytes) -> None:
        try:
            (self._folder / name).write_bytes(data)
        except OSError as error:
            raise Unfit("disk-full", f"cannot write to {self._folder}: {error.strerror}; free some space") from None

    def __delitem__(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def __contains__(self, name: object) -> bool:
        return (self._folder / str(name)).exists()

    def __iter__(self) -> Iterator[str]:
        return (path.name for path in self._folder.iterdir())

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Shelf:
    """Bytes by their SHA-256, one copy for all straws, gone with the last holder; never more than `most_bytes`."""

    def __init__(self, most_bytes: int, bodies: MutableMapping[str, bytes] | None = None) -> None:
        self._most = most_bytes
        self._bodies: MutableMapping[str, bytes] = {} if bodies is None else bodies
        self._holders: Counter[str] = Counter()
        self._sizes = {name: len(body) for name, body in self._bodies.items()}

    @property
    def bytes_held(self) -> int:
        """How much lies here."""
        return sum(self._sizes.values())

    def __contains__(self, digest: str) -> bool:
        return digest in self._sizes

    def __iter__(self) -> Iterator[str]:
        return iter(self._sizes)

    def hold(self, digest: str, data: bytes | None = None) -> None:
        """One more holder of bytes that are here, or of `data` (whose digest the caller has checked); raises Unfit("disk-full")."""
        if digest not in self._sizes:
            if data is None:
                raise Rejected("missing-object", f"{digest[:12]} is not on the shelf")
            if self.bytes_held + len(data) > self._most:
                raise Unfit("disk-full", f"the shelf of all straws holds {self.bytes_held} of {self._most} bytes already")
            self._bodies[digest] = data
            self._sizes[digest] = len(data)
        self._holders[digest] += 1

    def read(self, digest: str) -> bytes | None:
        """The bytes, unchecked; None when they are not here."""
        return self._bodies.get(digest)

    def release(self, digest: str) -> None:
        """One holder less."""
        self._holders[digest] -= 1
        if self._holders[digest] <= 0:
            self.drop(digest)

    def drop(self, digest: str) -> None:
        """Throw bytes away, whoever holds them: they are damaged, or nobody does."""
        del self._holders[digest]
        self._sizes.pop(digest, None)
        self._bodies.pop(digest, None)

    def tidy(self) -> None:
        """Throw away what nobody holds, such as the leavings of an earlier run."""
        for digest in [name for name in self._sizes if not self._holders[name]]:
            self.drop(digest)


class Cupboard:
    """One straw's own folder and its share of the shelf: what it has not received itself it does not have."""

    def __init__(self, folder: Folder, shelf: Shelf) -> None:
        self._folder, self._shelf = folder, shelf
        self._mine: set[str] = set()
        self._partial: dict[str, set[str]] = {}
        self.load, self.save = folder.load, folder.save
        self.document, self.put_document = folder.document, folder.put_document

    def has(self, digest: str) -> bool:
        """Whether this straw has received this object (its hash is checked when it is read)."""
        return digest in self._mine and digest in self._shelf

    def put(self, digest: str, size: int, data: bytes) -> None:
        """Keep an object; raises Rejected("bad-object") or Unfit("disk-full")."""
        check_object(digest, size, data)
        if not self.has(digest):
            self._shelf.hold(digest, data)
            self._mine.add(digest)

    def read(self, digest: str, size: int) -> bytes:
        """An object's bytes, checked against their hash; raises Rejected("missing-object" | "bad-object")."""
        return self._read(digest, size, self._mine)

    def put_frame(self, stream: str, digest: str, data: bytes) -> None:
        """Keep a frame (whose digest the caller has checked) until its stream is whole; raises Unfit("disk-full")."""
        frames = self._partial.setdefault(stream, set())
        if digest not in frames or digest not in self._shelf:
            self._shelf.hold(digest, data)
            frames.add(digest)

    def frame(self, stream: str, digest: str, size: int) -> bytes:
        """A kept frame, checked; raises as `read` does."""
        return self._read(digest, size, self._partial.get(stream, set()))

    def _read(self, digest: str, size: int, among: set[str]) -> bytes:
        data = self._shelf.read(digest) if digest in among else None
        if data is None:
            raise Rejected("missing-object", f"object {digest[:12]} is not on this device")
        try:
            check_object(digest, size, data)
        except Rejected:
            self._shelf.drop(digest)
            raise
        return data

    def drop_frames(self, stream: str) -> None:
        """Let go of a stream's frames."""
        for digest in self._partial.pop(stream, set()):
            self._shelf.release(digest)

    def sweep(self, objects: Iterable[str], documents: Iterable[str]) -> None:
        """Let go of every object, document and partial stream that is not named."""
        wanted = set(documents)
        for digest in self._mine - set(objects):
            self._shelf.release(digest)
            self._mine.discard(digest)
        for stream in self._partial.keys() - wanted:
            self.drop_frames(stream)
        self._folder.sweep((), wanted)

    def adopt(self, build: Build) -> None:
        """After a start: what lies on the shelf of a build this straw once committed is its own again."""
        with contextlib.suppress(Rejected):
            self._adopt(builds.variant_of(self, build).manifest)
            for side in builds.parts_of(self, build):
                self._adopt(side)

    def _adopt(self, side: Side) -> None:
        if side.sha256 not in self._mine and side.sha256 in self._shelf:
            self._shelf.hold(side.sha256)
            self._mine.add(side.sha256)


class ShelfFetch:
    """The frames of one stream on their way to a cupboard. Those of an earlier life are believed only by their hashes."""

    def __init__(self, kept: Cupboard, digest: str, stream: StreamList) -> None:
        self._kept, self._digest, self._stream = kept, digest, stream
        self.progress = Progress(stream, self._not_needed())
        for index, name in enumerate(stream.frames):
            with contextlib.suppress(Rejected):
                self.progress, _ = place(self.progress, index, kept.frame(digest, name, stream.length(index)))

    def _not_needed(self) -> int:
        """Frames all of whose objects are already here count as received."""
        needed = 0
        for name, start, end in offsets(self._stream):
            if end > start and not self._kept.has(name):
                first, last = start // self._stream.frame, (end - 1) // self._stream.frame
                needed |= ((1 << (last - first + 1)) - 1) << first
        return ((1 << len(self._stream.frames)) - 1) & ~needed

    def feed(self, index: int, data: bytes) -> bool:
        """Take one frame; True when the stream is complete. Raises Rejected("bad-frame") or Unfit("disk-full")."""
        progress, at = place(self.progress, index, data)
        if at is not None:
            self._kept.put_frame(self._digest, self._stream.frames[index], data)
        self.progress = progress
        return progress.done

    def finish(self) -> None:
        """Put the objects together and let go of the frames; raises Rejected, Unfit."""
        for name, start, end in offsets(self._stream):
            if not self._kept.has(name):
                self._kept.put(name, end - start, self._cut(start, end))
        self.drop()

    def _cut(self, start: int, end: int) -> bytes:
        stream, first = self._stream, start // self._stream.frame
        last = -(-end // stream.frame) if end > start else first
        read = (self._kept.frame(self._digest, stream.frames[index], stream.length(index)) for index in range(first, last))
        return b"".join(read)[start - first * stream.frame :][: end - start]

    def drop(self) -> None:
        """Let go of the frames."""
        self._kept.drop_frames(self._digest)
