"""The agent's folder: the A/B record, content-addressed objects, documents, keys. The only file that writes what must survive."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from edgeops.parcel.assembly import check_object
from edgeops.wire.errors import Misuse, Rejected, Unfit
from edgeops.wire.keys import sha256

from ..core import record as records
from ..core.record import Record

SYNC_DIR = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)


def write_whole(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace `path` by `data` so that a power cut leaves the old or the new bytes: temp, fsync, rename, fsync of the folder.

    Raises Unfit("disk-full") or Unfit("disk") when the file system refuses; nothing is left behind then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        reason = "disk-full" if error.errno in (28, 122) else "disk"
        raise Unfit(reason, f"cannot write {path.name}: {error.strerror}; free some space or check the disk") from None


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    descriptor = os.open(folder, SYNC_DIR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class StateFolder:
    """One agent's folder. `open` it to load the newest valid record."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.objects = root / "objects"
        self.documents = root / "documents"
        self.partial = root / "partial"
        self.slots = root / "slots"
        self.spool = root / "spool"
        self._seq = 0
        self._next = "a"

    def create(self) -> None:
        """Make the folders, private to the user."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (self.objects, self.documents, self.partial, self.slots, self.spool):
            folder.mkdir(exist_ok=True)

    def _copies(self) -> dict[str, bytes | None]:
        paths = {name: self.root / f"record.{name}" for name in ("a", "b")}
        return {name: path.read_bytes() if path.exists() else None for name, path in paths.items()}

    def load(self) -> Record:
        """The newest valid record; raises Misuse("not-enrolled") or Rejected("record-lost")."""
        copies = self._copies()
        found = records.newest(copies)
        if found is None:
            if any(data is not None for data in copies.values()):
                raise Rejected("record-lost", f"both state records in {self.root} are damaged; enrol this device again")
            raise Misuse("not-enrolled", f"{self.root} holds no enrolled device; run `edgeops-agent enroll TOKEN` first")
        name, self._seq, record = found
        self._next = "b" if name == "a" else "a"
        return record

    def save(self, record: Record) -> None:
        """Write `record` over the older copy; on return it is durable. Raises Unfit when the disk refuses."""
        write_whole(self.root / f"record.{self._next}", records.encode(record, self._seq + 1), 0o600)
        self._seq += 1
        self._next = "b" if self._next == "a" else "a"

    def has(self, digest: str, size: int) -> bool:
        """Whether the object is there with the right size (its hash is checked at verify and at load)."""
        path = self.objects / digest
        return path.exists() and path.stat().st_size == size

    def put(self, digest: str, size: int, data: bytes) -> None:
        """Keep an object; raises Rejected("bad-object") or Unfit (disk)."""
        check_object(digest, size, data)
        write_whole(self.objects / digest, data)

    def read(self, digest: str, size: int) -> bytes:
        """An object's bytes, checked against its hash; a damaged one is removed. Raises Rejected("bad-object")."""
        path = self.objects / digest
        try:
            data = path.read_bytes()
            check_object(digest, size, data)
        except FileNotFoundError:
            raise Rejected("missing-object", f"object {digest[:12]} is not on this device") from None
        except Rejected:
            path.unlink(missing_ok=True)
            raise
        return data

    def put_document(self, digest: str, data: bytes) -> None:
        """Keep a signed document under the digest of its payload."""
        write_whole(self.documents / digest, data)

    def document(self, digest: str) -> bytes:
        """A kept document; raises Rejected("missing-document")."""
        try:
            return (self.documents / digest).read_bytes()
        except FileNotFoundError:
            raise Rejected("missing-document", f"document {digest[:12]} is not on this device") from None

    def sweep(self, objects: Iterable[str], documents: Iterable[str]) -> int:
        """Delete every object, document and partial stream not named; returns how many files went."""
        gone = 0
        for folder, wanted in ((self.objects, set(objects)), (self.documents, set(documents)), (self.partial, set(documents))):
            for path in folder.iterdir():
                if path.name not in wanted:
                    path.unlink(missing_ok=True)
                    gone += 1
        return gone


def digest_file(path: Path) -> str:
    """Hex SHA-256 of a whole file."""
    return sha256(path.read_bytes())
