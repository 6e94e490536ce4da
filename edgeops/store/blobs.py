"""Objects on disk, named by their SHA-256: written beside, flushed, renamed; never believed without the hash.

Layout: <folder>/<first two hex digits>/<digest>.
"""

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeops.wire.errors import Misuse, Rejected, Unfit
from edgeops.wire.fields import HEX64

CHUNK = 1 << 20
NEW = ".new-"
DISK_FULL = "the manager's disk is full, nothing was stored; free some space there and try again"
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def roomy() -> Iterator[None]:
    """Raise Unfit("disk-full") where the body finds the disk full."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise Unfit("disk-full", DISK_FULL) from error


class Blobs:
    """A folder of objects."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where an object lies; raises Misuse("bad-digest")."""
        if not HEX64.fullmatch(digest):
            raise Misuse("bad-digest", f"{digest[:80]!r} is not a SHA-256 in lower-case hex")
        return self.folder / digest[:2] / digest

    def size(self, digest: str) -> int | None:
        """Bytes of an object, None when it is not here."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def put(self, digest: str, data: bytes | Iterable[bytes], limit: int) -> int:
        """Store an object of at most `limit` bytes and return its size.

        Raises Rejected("bad-object") when its hash is another, Misuse("too-large"), Unfit("disk-full").
        """
        path = self.path(digest)
        with roomy():
            path.parent.mkdir(exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=NEW)
            try:
                size = self._fill(handle, [data] if isinstance(data, bytes) else data, digest, limit)
                Path(temporary).replace(path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            _flush_folder(path.parent)
        return size

    def sweep(self) -> None:
        """Delete what a killed process left half written."""
        for path in self.folder.glob(f"*/{NEW}*"):
            path.unlink(missing_ok=True)

    @staticmethod
    def _fill(handle: int, chunks: Iterable[bytes], digest: str, limit: int) -> int:
        found, size = hashlib.sha256(), 0
        with os.fdopen(handle, "wb") as out:
            for chunk in chunks:
                size += len(chunk)
                if size > limit:
                    raise Misuse("too-large", f"object {digest[:12]} is larger than the {limit} bytes allowed")
                found.update(chunk)
                out.write(chunk)
            if found.hexdigest() != digest:
                raise Rejected("bad-object", f"the bytes sent as {digest[:12]} hash to {found.hexdigest()[:12]}; send them again")
            out.flush()
            os.fsync(out.fileno())
        return size

    def read(self, digest: str, start: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object, or of `length` bytes from `start`; raises Misuse("unknown-object")."""
        try:
            with self.path(digest).open("rb") as file:
                file.seek(start)
                return file.read() if length is None else file.read(length)
        except FileNotFoundError:
            raise Misuse("unknown-object", f"there is no object {digest}; upload it first") from None

    def chunks(self, digest: str, start: int, length: int) -> Iterator[bytes]:
        """The same in pieces of at most 1 MiB."""
        while length > 0:
            piece = self.read(digest, start, min(CHUNK, length))
            if not piece:
                return
            yield piece
            start, length = start + len(piece), length - len(piece)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
