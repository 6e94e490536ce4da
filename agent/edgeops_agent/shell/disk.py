"""The agent's folder: the A/B record, content-addressed objects, documents. How each is written so that it survives is here."""

import contextlib
import errno
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
from .files import DISK, PRIVATE, Files

COPY_BYTES = 320 << 10
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


def write_whole(path: Path, data: bytes, mode: int = 0o644, files: Files = DISK) -> None:
    """Replace `path` by `data` so that a power cut leaves the old or the new bytes: temp, fsync, rename, fsync of the folder.

    Raises Unfit("disk-full") or Unfit("disk") when the file system refuses; nothing is left behind then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with refusals(path.name):
        try:
            files.write(temporary, data, mode)
            files.sync(temporary)
            files.replace(temporary, path)
            files.sync(path.parent)
        except OSError:
            with contextlib.suppress(OSError):
                files.remove(temporary)
            raise


class StateFolder:
    """One agent's folder. `claim` it before writing; `load` gives the newest valid record."""

    def __init__(self, root: Path, files: Files = DISK) -> None:
        self.root, self.files = root, files
        self.objects = root / "objects"
        self.documents = root / "documents"
        self.partial = root / "partial"
        self.slots = root / "slots"
        self.spool = root / "spool"
        self._folders = (self.objects, self.documents, self.partial, self.slots, self.spool)
        self.fetches: WeakSet[Any] = WeakSet()
        """The downloads that write here; whoever forgets one gives its space back."""
        self._seq = 0
        self._next = "a"
        self._lock: int | None = None
        self._owed: set[Path] = set()

    def create(self) -> None:
        """Make the folders, private to the user; raises Misuse("state-folder")."""
        files = self.files
        try:
            new = [folder for folder in (self.root, *self.root.parents) if files.look(folder) is None]
            if new:
                files.make(self.root)
            self._keep_private()
            for folder in self._folders:
                files.make(folder)
            files.sync(self.root)
            for folder in new:
                with contextlib.suppress(PermissionError):  # whoever may not read a folder cannot sync it either
                    files.sync(folder.parent)
        except OSError as error:
            raise _unusable(self.root, error) from None

    def claim(self) -> None:
        """Be the only agent on this folder until this process ends; raises Misuse("agent-running" | "state-folder")."""
        path = self.root / "lock"
        try:
            self._keep_private()
            self._lock = self.files.lock(path)
            holder = b"" if self._lock is not None else self.files.read(path, 0, 20)
        except FileNotFoundError:
            raise _not_enrolled(self.root) from None
        except OSError as error:
            raise _unusable(self.root, error) from None
        if self._lock is None:
            who = holder.decode(errors="replace").strip() or "?"
            message = f"another agent (process {who}) uses {self.root}; stop it first or choose another --state folder"
            raise Misuse("agent-running", message)

    def _keep_private(self) -> None:
        """Keys lie here: others may not even look. A folder that holds something else is not closed to those who may need it."""
        seen = self.files.look(self.root)
        if seen is None:
            raise FileNotFoundError
        if seen.owner != os.geteuid():
            message = f"{self.root} belongs to another user ({seen.owner}); run as that user or choose another --state folder"
            raise Misuse("state-folder", message)
        if seen.mode & 0o077:
            if self.files.names(self.root) and self.files.look(self.partial) is None:
                message = f"{self.root} holds other files and is open to others; `chmod 700` it or choose another --state folder"
                raise Misuse("state-folder", message)
            self.files.make(self.root)

    def release(self) -> None:
        """Give the folder back."""
        if self._lock is not None:
            self.files.unlock(self._lock)
            self._lock = None

    def prepare(self) -> None:
        """After `claim`: lay out both copies of the record and remove what an interrupted write left. Raises Unfit (disk).

        Whatever a killed agent left here without syncing it is made durable before anybody acts upon it.
        """
        for name in ("a", "b"):
            path = self.root / f"record.{name}"
            with refusals(path.name):
                seen = self.files.look(path)
                size = seen.size if seen else 0
                if size < COPY_BYTES:
                    self.files.patch(path, size, bytes(COPY_BYTES - size))
                self.files.sync(path)
        for folder in self._folders:
            with refusals(f"{folder.name}/"):
                if self.files.look(folder) is None:  # whoever cleans up takes empty ones away
                    self.files.make(folder)
        for folder in (self.root, *self._folders):
            with refusals(f"{folder.name}/"):
                self._tidy(folder, [name for name in self.files.names(folder) if name.startswith(".") and name.endswith(".tmp")])
                self.files.sync(folder)

    def _tidy(self, folder: Path, names: Iterable[str]) -> int:
        """Remove what can be removed: what somebody else has put there may stay. Returns how many files went."""
        gone = 0
        for name in names:
            with contextlib.suppress(OSError):
                self.files.remove(folder / name)
                gone += 1
        return gone

    def copies(self) -> dict[str, bytes | None]:
        """The bytes of each copy; None for one that was never written. What follows the first line is of older records."""
        copies: dict[str, bytes | None] = {}
        for name in ("a", "b"):
            try:
                line = self.files.read(self.root / f"record.{name}", 0, COPY_BYTES).partition(b"\n")[0].rstrip(b"\0")
                copies[name] = line or None
            except FileNotFoundError:
                copies[name] = None
            except OSError as error:
                if error.errno != errno.EIO:
                    raise _unusable(self.root, error) from None
                copies[name] = b"unreadable"  # as good as torn; the other copy is there for this
        return copies

    def is_enrolled(self) -> bool:
        """Whether a record was ever saved here, readable or not."""
        return any(self.copies().values()) or self.files.look(self.keepsake) is not None

    def load(self) -> Record:
        """The newest valid record; raises Misuse("not-enrolled" | "state-folder") or Rejected("record-lost").

        It is unsure when the other copy is torn, which may have been the newer one, or when only the keepsake is left.
        """
        copies = self.copies()
        # Both copies look torn when a running agent saved twice between our two reads.
        found = records.newest(copies) or records.newest(copies := self.copies())
        if found is None:
            return self._last_resort(any(copies.values()))
        name, self._seq, record = found
        self._next = "b" if name == "a" else "a"
        return replace(record, unsure=True) if records.is_torn(copies[self._next]) else record

    @property
    def keepsake(self) -> Path:
        """The third copy."""
        return self.root / "record.kept"

    def _last_resort(self, torn: bool) -> Record:
        try:
            self._seq, kept = records.decode(self.files.read(self.keepsake, 0, COPY_BYTES))
        except (OSError, Rejected):
            if not torn:
                raise _not_enrolled(self.root) from None
            every = f"{self.root / 'record.a'}, {self.root / 'record.b'} and {self.keepsake}"
            message = f"all copies of the state record are damaged: {every}; delete {self.root} and enrol with a new token"
            raise Rejected("record-lost", message) from None
        return records.restored(kept)

    def keep(self, record: Record) -> None:
        """Keep a third copy, for the day when the other two are gone; raises Unfit (disk)."""
        self.put_whole(self.keepsake, records.encode(record, self._seq), PRIVATE)

    def save(self, record: Record) -> None:
        """Write `record` over the older copy; on return it is durable. Raises Unfit when the disk refuses.

        In place: no new space is needed, and a torn write leaves the newer copy. The line's end marks where older bytes follow.
        """
        path = self.root / f"record.{self._next}"
        with refusals(path.name):
            for folder in sorted(self._owed):  # the record may name what lies there
                self.files.sync(folder)
                self._owed.discard(folder)
            self.files.patch(path, 0, records.encode(record, self._seq + 1) + b"\n")
            self.files.sync(path)
        self._seq += 1
        self._next = "b" if self._next == "a" else "a"

    def put_whole(self, path: Path, data: bytes, mode: int = 0o644) -> None:
        """`write_whole` on this folder's disk. Should the new name be there and not durable, the next save makes it so."""
        self._owed.add(path.parent)
        write_whole(path, data, mode, self.files)
        self._owed.discard(path.parent)

    def has(self, digest: str, size: int) -> bool:
        """Whether the object is there with the right size (its hash is checked at verify and at load)."""
        try:
            seen = self.files.look(self.objects / digest)
        except OSError:
            return False
        return seen is not None and seen.size == size

    def put(self, digest: str, size: int, data: bytes) -> None:
        """Keep an object; raises Rejected("bad-object") or Unfit (disk)."""
        check_object(digest, size, data)
        self.put_whole(self.objects / digest, data)

    def read(self, digest: str, size: int) -> bytes:
        """An object's bytes, checked against its hash; a damaged one is removed. Raises Rejected("bad-object"), Unfit (disk)."""
        path = self.objects / digest
        try:
            data = self.files.read(path)
            check_object(digest, size, data)
        except FileNotFoundError:
            raise Rejected("missing-object", f"object {digest[:12]} is not on this device") from None
        except OSError as error:
            raise Unfit("disk", f"object {digest[:12]} cannot be read: {error.strerror}; check the disk") from None
        except Rejected:
            with contextlib.suppress(OSError):
                self.files.remove(path)
            raise
        return data

    def put_document(self, digest: str, data: bytes) -> None:
        """Keep a signed document under the digest of its payload; one that is there already is not written again."""
        with contextlib.suppress(OSError):
            if self.files.read(self.documents / digest) == data:
                return
        self.put_whole(self.documents / digest, data)

    def document(self, digest: str) -> bytes:
        """A kept document; raises Rejected("missing-document"), Unfit (disk)."""
        if not digest:  # an older agent did not keep which one it was
            raise Rejected("missing-document", "the record does not say which document that was")
        try:
            return self.files.read(self.documents / digest)
        except FileNotFoundError:
            raise Rejected("missing-document", f"document {digest[:12]} is not on this device") from None
        except OSError as error:
            raise Unfit("disk", f"document {digest[:12]} cannot be read: {error.strerror}; check the disk") from None

    def sweep(self, objects: Iterable[str], documents: Iterable[str]) -> int:
        """Delete every object, document and partial stream not named; returns how many files went."""
        gone = 0
        for folder, wanted in ((self.objects, set(objects)), (self.documents, set(documents)), (self.partial, set(documents))):
            with contextlib.suppress(OSError):
                gone += self._tidy(folder, [name for name in self.files.names(folder) if name not in wanted])
        return gone


def _not_enrolled(root: Path) -> Misuse:
    return Misuse("not-enrolled", f"{root} holds no enrolled device; run `edgeops-agent enroll TOKEN` first")


def _unusable(root: Path, error: OSError) -> Misuse:
    message = f"{root} cannot be used: {error.strerror} ({error.filename}); mend its permissions or choose another --state folder"
    return Misuse("state-folder", message)
