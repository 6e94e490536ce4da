"""Fetching one stream into the folder: frames are checked and placed, whole objects move to the object store."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from edgeops.parcel.assembly import Progress, offsets, place
from edgeops.parcel.stream import StreamList
from edgeops.wire.errors import Rejected, Unfit

from .disk import StateFolder, refusals

RESERVE_BYTES = 8 << 20


class StreamFetch:
    """The frames of one stream on their way to disk. What an earlier run left is read again and believed only by its hashes.

    Raises Unfit("disk-full") when the objects that are missing will not fit.
    """

    def __init__(self, folder: StateFolder, digest: str, stream: StreamList) -> None:
        self.folder, self.digest, self.stream = folder, digest, stream
        self.path: Path = folder.partial / digest
        self.progress = Progress(stream, self._not_needed())
        self._check_space()
        folder.fetches.add(self)
        self._resume()

    def _not_needed(self) -> int:
        """Frames all of whose objects are already here count as received."""
        needed = 0
        for name, start, end in offsets(self.stream):
            if end > start and not self.folder.has(name, end - start):
                first, last = start // self.stream.frame, (end - 1) // self.stream.frame
                needed |= ((1 << (last - first + 1)) - 1) << first
        return ((1 << len(self.stream.frames)) - 1) & ~needed

    def outstanding(self) -> int:
        """Bytes that will still be taken. Missing objects lie on disk twice for a moment: as frames (some are there) and whole."""
        missing = sum(end - start for name, start, end in offsets(self.stream) if not self.folder.has(name, end - start))
        seen = self.folder.files.look(self.path)
        return 2 * missing - min(seen.taken if seen else 0, missing)

    def _check_space(self) -> None:
        """What other downloads still need is not free; two of one stream share one file."""
        with refusals("the frames"):
            others = {other.digest: other.outstanding() for other in self.folder.fetches if other.digest != self.digest}
            need = self.outstanding() + RESERVE_BYTES
        self._require(need, sum(others.values()), "installing")

    def _require(self, need: int, taken: int, what: str) -> None:
        with refusals("the frames"):
            free = self.folder.files.free(self.folder.root) - taken
        if free < need:
            others = f" beside the {taken} that other downloads need" if taken else ""
            raise Unfit("disk-full", f"{what} needs {need} bytes of disk, {max(0, free)} are free{others}; free some space")

    def _resume(self) -> None:
        with refusals("the frames"), contextlib.suppress(FileNotFoundError):
            for index in range(len(self.stream.frames)):
                data = self.folder.files.read(self.path, index * self.stream.frame, self.stream.length(index))
                if len(data) == self.stream.length(index) and any(data):
                    with contextlib.suppress(Rejected):
                        self.progress, _ = place(self.progress, index, data)

    def feed(self, index: int, data: bytes) -> bool:
        """Take one frame; True when the stream is complete. Raises Rejected("bad-frame") or Unfit (disk)."""
        progress, at = place(self.progress, index, data)
        if at is not None:
            self._require(len(data) + RESERVE_BYTES, 0, "a frame and what must stay free")  # others write here too
            with refusals("a frame"):
                self.folder.files.patch(self.path, at, data)
        self.progress = progress
        return progress.done

    def finish(self) -> Iterable[str]:
        """Move whole objects to the store, then drop the partial file; returns the digests. Raises Rejected, Unfit."""
        names = []
        for name, start, end in offsets(self.stream):
            if not self.folder.has(name, end - start):
                self.folder.put(name, end - start, self._read(start, end))
            names.append(name)
        self.drop()
        return names

    def _read(self, start: int, end: int) -> bytes:
        if end == start:
            return b""
        with refusals("an object"):
            return self.folder.files.read(self.path, start, end - start)

    def drop(self) -> None:
        """Delete the partial file."""
        with contextlib.suppress(OSError):
            self.folder.files.remove(self.path)
