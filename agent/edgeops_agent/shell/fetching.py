"""Fetching one stream into the folder: frames are checked and placed, whole objects move to the object store."""

import os
from collections.abc import Iterable
from pathlib import Path

from edgeops.parcel.assembly import Progress, offsets, place
from edgeops.parcel.stream import StreamList
from edgeops.wire.errors import Rejected, Unfit

from .disk import StateFolder

RESERVE_BYTES = 8 << 20


class StreamFetch:
    """The frames of one stream on their way to disk. What an earlier run left is read again and believed only by its hashes."""

    def __init__(self, folder: StateFolder, digest: str, stream: StreamList) -> None:
        self.folder, self.digest, self.stream = folder, digest, stream
        self.path: Path = folder.partial / digest
        self.progress = Progress(stream, self._not_needed())
        self._check_space()
        self._resume()

    def _not_needed(self) -> int:
        """Frames all of whose objects are already here count as received."""
        needed = 0
        for name, start, end in offsets(self.stream):
            if end > start and not self.folder.has(name, end - start):
                first, last = start // self.stream.frame, (end - 1) // self.stream.frame
                needed |= ((1 << (last - first + 1)) - 1) << first
        return ((1 << len(self.stream.frames)) - 1) & ~needed

    def _check_space(self) -> None:
        status = os.statvfs(self.folder.root)
        free, need = status.f_bavail * status.f_frsize, 2 * self.stream.size + RESERVE_BYTES
        if free < need:
            message = f"installing needs {need} bytes of disk, {free} are free; free some space"
            raise Unfit("disk-full", message)

    def _resume(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for index in range(len(self.stream.frames)):
                file.seek(index * self.stream.frame)
                data = file.read(self.stream.length(index))
                if len(data) == self.stream.length(index) and any(data):
                    self._take(index, data, quiet=True)

    def _take(self, index: int, data: bytes, quiet: bool) -> int | None:
        try:
            self.progress, at = place(self.progress, index, data)
        except Rejected:
            if quiet:
                return None
            raise
        return at

    def feed(self, index: int, data: bytes) -> bool:
        """Take one frame; True when the stream is complete. Raises Rejected("bad-frame") or Unfit (disk)."""
        at = self._take(index, data, quiet=False)
        if at is not None:
            try:
                descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.seek(at)
                    file.write(data)
            except OSError as error:
                raise Unfit("disk-full", f"cannot write a frame: {error.strerror}") from None
        return self.progress.done

    def finish(self) -> Iterable[str]:
        """Move whole objects to the store, then drop the partial file; returns the digests. Raises Rejected, Unfit."""
        names = []
        for name, start, end in offsets(self.stream):
            if not self.folder.has(name, end - start):
                data = b""
                if end > start:
                    with self.path.open("rb") as file:
                        file.seek(start)
                        data = file.read(end - start)
                self.folder.put(name, end - start, data)
            names.append(name)
        self.path.unlink(missing_ok=True)
        return names
