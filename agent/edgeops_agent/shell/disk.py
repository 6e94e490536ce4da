"""The agent's folder: the A/B record, content-addressed objects, documents, keys. The only file that writes what must survive."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakSet

from edgeops.parcel.assembly import check_object
from edgeops.wire.errors import Misuse, Rejected, Unfit

from ..core import record as records
from ..core.record import Record

SYNC_DIR = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
COPY_BYTES = 256 << 10
"""Laid out for each copy of the record at enrolment, so that a full disk still takes a save: no record is larger."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def refusals(what: str) -> Iterator[None]:
    """Give what the file system refuses its name: raises Unfit("disk-full" | "disk")."""
    try:
        yield
    except OSError as error:
        reason = "disk-full" if error.errno in _FULL else "disk"
        raise Unfit(reason, f"cannot write {what}: {error.strerror}; free some space or check the disk") from None


def write_whole(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace `path` by `data` so that a power cut leaves the old or the new bytes: temp, fsync, rename, fsync of the folder.

    Raises Unfit("disk-full") or Unfit("disk") when the file system refuses; nothing is left behind then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with refusals(path.name):
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    descriptor = os.open(folder, SYNC_DIR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class StateFolder:
    """One agent's folder. `claim` it before writing; `load` gives the newest valid record."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.objects = root / "objects"
        self.documents = root / "documents"
        self.partial = root / "partial"
        self.slots = root / "slots"
        self.spool = root / "spool"
        self.fetches: WeakSet[Any] = WeakSet()
        """The downloads that write here; whoever forgets one gives its space back."""
        self._seq = 0
        self._next = "a"
        self._lock = -1

    def create(self) -> None:
        """Make the folders, private to the user; raises Misuse("state-folder")."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._keep_private()
            for folder in (self.objects, self.documents, self.partial, self.slots, self.spool):
                folder.mkdir(exist_ok=True)
        except OSError as error:
            raise _unusable(self.root, error) from None

    def claim(self) -> None:
        """Be the only agent on this folder until this process ends; raises Misuse("agent-running" | "state-folder")."""
        path = self.root / "lock"
        try:
            self._keep_private()
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 20, 0).decode(errors="replace").strip()
            self.release()
            message = f"another agent (process {holder or '?'}) uses {self.root}; stop it first or choose another --state folder"
            raise Misuse("agent-running", message) from None
        except FileNotFoundError:
            raise _not_enrolled(self.root) from None
        except OSError as error:
            raise _unusable(self.root, error) from None
        with contextlib.suppress(OSError):  # the number is for people; the lock holds without it
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, b"%d" % os.getpid(), 0)

    def _keep_private(self) -> None:
        """Keys lie here: others may not even look. A folder that holds something else is not closed to those who may need it."""
        status = self.root.stat()
        if status.st_uid != os.geteuid():
            message = f"{self.root} belongs to another user ({status.st_uid}); run as that user or choose another --state folder"
            raise Misuse("state-folder", message)
        if status.st_mode & 0o077:
            if any(self.root.iterdir()) and not self.partial.exists():
                message = f"{self.root} holds other files and is open to others; `chmod 700` it or choose another --state folder"
                raise Misuse("state-folder", message)
            self.root.chmod(0o700)

    def release(self) -> None:
        """Give the folder back."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def prepare(self) -> None:
        """After `claim`: lay out both copies of the record and remove what an interrupted write left. Raises Unfit (disk)."""
        for name in ("a", "b"):
            path = self.root / f"record.{name}"
            with refusals(path.name), path.open("ab") as file:
                file.write(bytes(max(0, COPY_BYTES - file.tell())))
                file.flush()
                os.fsync(file.fileno())
        for folder in (self.root, self.objects, self.documents, self.slots, self.spool):
            for path in folder.glob(".*.tmp"):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _copies(self) -> dict[str, bytes | None]:
        """The bytes of each copy; None for one that was never written. What follows the first line is of older records."""
        copies: dict[str, bytes | None] = {}
        for name in ("a", "b"):
            try:
                line = (self.root / f"record.{name}").read_bytes().partition(b"\n")[0].rstrip(b"\0")
                copies[name] = line or None
            except FileNotFoundError:
                copies[name] = None
            except OSError as error:
                raise _unusable(self.root, error) from None
        return copies

    def is_enrolled(self) -> bool:
        """Whether a record was ever saved here, readable or not."""
        return any(self._copies().values()) or self._keepsake.exists()

    def load(self) -> Record:
        """The newest valid record; raises Misuse("not-enrolled" | "state-folder") or Rejected("record-lost").

        It is unsure when the other copy is torn, which may have been the newer one, or when only the keepsake is left.
        """
        copies = self._copies()
        # Both copies look torn when a running agent saved twice between our two reads.
        found = records.newest(copies) or records.newest(copies := self._copies())
        if found is None:
            return self._last_resort(any(copies.values()))
        name, self._seq, record = found
        self._next = "b" if name == "a" else "a"
        return replace(record, unsure=True) if records.is_torn(copies[self._next]) else record

    @property
    def _keepsake(self) -> Path:
        return self.root / "record.kept"

    def _last_resort(self, torn: bool) -> Record:
        try:
            self._seq, kept = records.decode(self._keepsake.read_bytes())
        except (OSError, Rejected):
            if not torn:
                raise _not_enrolled(self.root) from None
            every = f"{self.root / 'record.a'}, {self.root / 'record.b'} and {self._keepsake}"
            message = f"all copies of the state record are damaged: {every}; delete {self.root} and enrol with a new token"
            raise Rejected("record-lost", message) from None
        return records.restored(kept)

    def keep(self, record: Record) -> None:
        """Keep a third copy, for the day when the other two are gone; raises Unfit (disk)."""
        write_whole(self._keepsake, records.encode(record, self._seq), 0o600)

    def save(self, record: Record) -> None:
        """Write `record` over the older copy; on return it is durable. Raises Unfit when the disk refuses.

        In place: no new space is needed, and a torn write leaves the newer copy. The line's end marks where older bytes follow.
        """
        name = f"record.{self._next}"
        with refusals(name):
            descriptor = os.open(self.root / name, os.O_WRONLY | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(records.encode(record, self._seq + 1) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        self._seq += 1
        self._next = "b" if self._next == "a" else "a"

    def has(self, digest: str, size: int) -> bool:
        """Whether the object is there with the right size (its hash is checked at verify and at load)."""
        try:
            return (self.objects / digest).stat().st_size == size
        except OSError:
            return False

    def put(self, digest: str, size: int, data: bytes) -> None:
        """Keep an object; raises Rejected("bad-object") or Unfit (disk)."""
        check_object(digest, size, data)
        write_whole(self.objects / digest, data)

    def read(self, digest: str, size: int) -> bytes:
        """An object's bytes, checked against its hash; a damaged one is removed. Raises Rejected("bad-object"), Unfit (disk)."""
        path = self.objects / digest
        try:
            data = path.read_bytes()
            check_object(digest, size, data)
        except FileNotFoundError:
            raise Rejected("missing-object", f"object {digest[:12]} is not on this device") from None
        except OSError as error:
            raise Unfit("disk", f"object {digest[:12]} cannot be read: {error.strerror}; check the disk") from None
        except Rejected:
            path.unlink(missing_ok=True)
            raise
        return data

    def put_document(self, digest: str, data: bytes) -> None:
        """Keep a signed document under the digest of its payload; one that is there already is not written again."""
        with contextlib.suppress(OSError):
            if (self.documents / digest).read_bytes() == data:
                return
        write_whole(self.documents / digest, data)

    def document(self, digest: str) -> bytes:
        """A kept document; raises Rejected("missing-document")."""
        try:
            return (self.documents / digest).read_bytes()
        except OSError:
            raise Rejected("missing-document", f"document {digest[:12]} is not on this device") from None

    def sweep(self, objects: Iterable[str], documents: Iterable[str]) -> int:
        """Delete every object, document and partial stream not named; returns how many files went."""
        gone = 0
        for folder, wanted in ((self.objects, set(objects)), (self.documents, set(documents)), (self.partial, set(documents))):
            for path in folder.iterdir():
                if path.name not in wanted:
                    with contextlib.suppress(OSError):
                        path.unlink()
                        gone += 1
        return gone


def _not_enrolled(root: Path) -> Misuse:
    return Misuse("not-enrolled", f"{root} holds no enrolled device; run `edgeops-agent enroll TOKEN` first")


def _unusable(root: Path, error: OSError) -> Misuse:
    message = f"{root} cannot be used: {error.strerror} ({error.filename}); mend its permissions or choose another --state folder"
    return Misuse("state-folder", message)
