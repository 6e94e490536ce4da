"""A disk that takes nothing, or holds what somebody else has put there: the agent starts, goes on, and no file ends it."""

import errno
import fcntl
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from edgeops.wire.errors import Misuse, Rejected
from edgeops_agent.core.record import Record
from edgeops_agent.shell import disk
from edgeops_agent.shell.consent import Consent
from edgeops_agent.shell.disk import StateFolder
from edgeops_agent.shell.files import DISK
from edgeops_agent.shell.leases import held
from edgeops_agent.shell.listen import Listeners
from edgeops_agent.shell.spool import Spool

from .conftest import Paper

REFUSALS = [errno.EROFS, errno.ENOSPC, errno.EDQUOT]


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    """A folder with a record."""
    made = StateFolder(tmp_path / "state")
    made.create()
    made.save(Record(Paper().trust))
    return made


def refuse(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Nothing can be opened for writing."""
    real = os.open

    def opened(path: Any, flags: int, *more: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(code, os.strerror(code), str(path))
        return real(path, flags, *more)

    monkeypatch.setattr(os, "open", opened)


@pytest.mark.parametrize("code", [*REFUSALS, errno.EACCES])
def test_a_folder_that_takes_nothing_can_be_claimed(folder: StateFolder, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A card that was mounted read-only, at start: the lock holds without writing, and against others."""
    folder.claim()
    folder.release()
    refuse(monkeypatch, code)
    folder.claim()
    with pytest.raises(Misuse, match="agent-running"):
        StateFolder(folder.root).claim()
    folder.release()


def test_where_no_lock_can_be_made_the_reason_is_told(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that was never claimed, on a disk that takes nothing: it is not said that nobody has enrolled."""
    refuse(monkeypatch, errno.EROFS)
    with pytest.raises(Misuse, match=r"Read-only file system.*state-folder"):
        folder.claim()


@pytest.mark.parametrize("code", REFUSALS)
@pytest.mark.parametrize("call", ["bind", "unlink"])
def test_without_a_socket_file_there_is_tcp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> None:
    """No inode is left, or an old socket file cannot be replaced: calls come by TCP, and nothing of others is removed."""
    path = tmp_path / "run.sock"

    class Refusing(socket.socket):
        def bind(self, address: Any) -> None:
            if self.family == socket.AF_UNIX and call == "bind":
                raise OSError(code, os.strerror(code))
            super().bind(address)

    def unlink(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    if call == "unlink":
        with socket.socket(socket.AF_UNIX) as old:
            old.bind(str(path))
        monkeypatch.setattr(Path, "unlink", unlink)
    monkeypatch.setattr(socket, "socket", Refusing)
    listeners = Listeners.open("127.0.0.1", 0, path)
    assert listeners.sockets == (listeners.tcp,) and listeners.port
    listeners.close()
    assert path.exists() == (call == "unlink")


def test_a_socket_path_that_cannot_be_is_misuse(tmp_path: Path) -> None:
    """What the caller can mend is still refused."""
    with pytest.raises(Misuse, match="socket-path"):
        Listeners.open("127.0.0.1", 0, tmp_path / "missing" / "run.sock")


def test_folders_that_were_taken_away_are_made(folder: StateFolder) -> None:
    """Whoever cleans up takes empty folders away: the next start makes them, so that updates go on."""
    folders = (folder.objects, folder.documents, folder.partial, folder.slots, folder.spool)
    for each in folders:
        each.rmdir()
    folder.claim()
    folder.prepare()
    folder.release()
    assert all(each.is_dir() for each in folders)


def test_what_cannot_be_removed_hides_nothing(folder: StateFolder) -> None:
    """A folder of somebody else's among our files: all others are swept, and what was interrupted is removed."""
    (folder.objects / ".Trash-1000").mkdir()
    (folder.documents / ".a.tmp").mkdir()
    for path in (folder.objects / "b", folder.documents / ".b.tmp", folder.spool / ".c.tmp"):
        path.write_bytes(b"x")
    folder.claim()
    folder.prepare()
    assert not (folder.documents / ".b.tmp").exists() and not (folder.spool / ".c.tmp").exists()
    assert folder.sweep((), ()) == 1 and not (folder.objects / "b").exists()
    folder.release()


def test_only_as_much_is_read_as_a_record_can_be(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy and a keepsake that have become huge take no memory; the other copy is taken."""
    asked: list[int] = []
    read = folder.files.read
    monkeypatch.setattr(disk.StateFolder, "keepsake", folder.root / "record.b")
    monkeypatch.setattr(type(folder.files), "read", lambda _, path, at=0, most=-1: (asked.append(most), read(path, at, most))[1])
    os.truncate(folder.root / "record.a", 64 << 20)
    assert folder.load().trust == Paper().trust
    os.truncate(folder.root / "record.a", 0)
    (folder.root / "record.b").write_bytes(b"x")
    os.truncate(folder.root / "record.b", 64 << 20)
    with pytest.raises(Rejected, match="record-lost"):
        folder.load()
    assert set(asked) == {disk.COPY_BYTES}


def test_no_document_has_no_name(folder: StateFolder) -> None:
    """A build that an older agent has kept names no stream list: that is a missing document, not a bad disk."""
    with pytest.raises(Rejected, match="missing-document"):
        folder.document("")


@pytest.mark.parametrize("name", ["²", "١", "9" * 200, "x"])
def test_strange_names_in_the_spool_are_left_alone(folder: StateFolder, name: str) -> None:
    """Only what the spool itself has written is sent: a file of somebody else's ends nothing."""
    (folder.spool / name).write_bytes(b"x")
    spool = Spool(folder.spool)
    assert spool.oldest() is None
    spool.add(b"window")
    assert spool.oldest() == (0, b"window")


@pytest.mark.parametrize("data", [b"[" * 4096, b'{"a":' * 800])
def test_nested_nonsense_is_no_answer(tmp_path: Path, data: bytes) -> None:
    """Deeper than can be read: nobody has answered, and the lease says nothing."""
    for name in ("consent", "leases"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "main.json").write_bytes(data)
    assert Consent(tmp_path).answer("main") is None
    with (tmp_path / "leases" / "main.json").open() as lease:
        fcntl.flock(lease, fcntl.LOCK_EX)
        assert held(tmp_path) == []


@pytest.mark.parametrize("digest", [b"[]", b"{}", b"7", b"null"])
def test_a_lease_of_no_digest_says_nothing(tmp_path: Path, digest: bytes) -> None:
    """It is counted, for somebody holds it, and is of no release."""
    (tmp_path / "leases").mkdir()
    path = tmp_path / "leases" / "x.json"
    path.write_bytes(b'{"digest":' + digest + b"}")
    with path.open() as lease:
        fcntl.flock(lease, fcntl.LOCK_EX)
        assert held(tmp_path) == [{}]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """A FIFO where a file should be, with and without a writer: it is no answer, at once."""
    for name in ("consent", "leases"):
        (tmp_path / name).mkdir()
        os.mkfifo(tmp_path / name / "main.json")
    writer = os.open(tmp_path / "leases" / "main.json", os.O_RDWR)
    fcntl.flock(writer, fcntl.LOCK_EX)
    found: list[Any] = []
    reading = threading.Thread(target=lambda: found.extend((Consent(tmp_path).answer("main"), held(tmp_path))), daemon=True)
    reading.start()
    reading.join(10.0)
    os.close(writer)
    assert found == [None, []]


def test_a_lease_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """Whoever may leave leases must not have the agent write into another file."""
    (tmp_path / "kept").write_bytes(b"precious")
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / "x.json").symlink_to(tmp_path / "kept")
    assert held(tmp_path) == [] and (tmp_path / "kept").read_bytes() == b"precious"
    with pytest.raises(OSError, match="symbolic links"):
        DISK.lock(tmp_path / "leases" / "x.json")
