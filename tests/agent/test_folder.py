"""The agent's folder and its fetches, on a real disk."""

import os
from pathlib import Path

import pytest

from edgeops.parcel.stream import cut
from edgeops.wire.errors import Misuse, Rejected, Unfit
from edgeops.wire.keys import sha256
from edgeops_agent.core.record import Record
from edgeops_agent.shell.disk import StateFolder
from edgeops_agent.shell.fetching import RESERVE_BYTES, StreamFetch
from edgeops_agent.shell.spool import MAX_BYTES, MAX_FILES, Spool

from .conftest import Paper

BODIES = [os.urandom(100_000), b"", os.urandom(5), os.urandom(70_000)]


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    """An empty agent folder."""
    made = StateFolder(tmp_path / "state")
    made.create()
    return made


def test_saves_alternate_and_survive_a_torn_copy(folder: StateFolder) -> None:
    """Each save overwrites the older copy, so tearing the newest one goes back by one save, never to nothing."""
    for seq in (1, 2, 3):
        folder.save(Record(Paper().trust, report_seq=seq))
    assert StateFolder(folder.root).load().report_seq == 3
    newest = max((folder.root / f"record.{name}" for name in "ab"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:50])
    again = StateFolder(folder.root)
    assert again.load().report_seq == 2
    again.save(Record(Paper().trust, report_seq=9))
    assert StateFolder(folder.root).load().report_seq == 9


def test_a_folder_is_nobody_elses_business(tmp_path: Path) -> None:
    """One that was there with open doors is closed at enrolment and at each start, whoever opened them."""
    root = tmp_path / "state"
    root.mkdir(mode=0o755)
    made = StateFolder(root)
    for closes in (made.create, made.claim):
        root.chmod(0o755)
        closes()
        assert root.stat().st_mode & 0o777 == 0o700
    made.release()


def test_a_folder_of_others_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where other files lie, or another user is at home, nothing is changed and the text says what to do."""
    (tmp_path / "photos").mkdir()
    tmp_path.chmod(0o755)
    with pytest.raises(Misuse, match=r"chmod 700.*state-folder"):
        StateFolder(tmp_path).create()
    assert tmp_path.stat().st_mode & 0o777 == 0o755 and len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(Misuse, match=r"another user.*state-folder"):
        StateFolder(tmp_path).claim()


def test_missing_and_lost_records_say_what_to_do(folder: StateFolder) -> None:
    """No record means not enrolled; two damaged ones mean lost; both are told apart and told plainly."""
    with pytest.raises(Misuse, match="not-enrolled"):
        folder.load()
    for name in "ab":
        (folder.root / f"record.{name}").write_bytes(b"junk")
    with pytest.raises(Rejected, match="record-lost"):
        folder.load()


def test_objects_are_believed_by_hash_only(folder: StateFolder) -> None:
    """A damaged object is refused and removed, so that the next fetch gets it again."""
    digest = sha256(b"weights")
    folder.put(digest, 7, b"weights")
    (folder.objects / digest).write_bytes(b"weightz")
    with pytest.raises(Rejected, match="bad-object"):
        folder.read(digest, 7)
    assert not folder.has(digest, 7)


def test_fetch_in_any_order_with_bad_and_double_frames(folder: StateFolder) -> None:
    """Frames may come late, twice or forged; the objects are whole in the end and the partial file is gone."""
    stream, frames = cut("berlin", BODIES)
    fetch = StreamFetch(folder, "s" * 64, stream)
    assert not fetch.feed(2, frames[2])
    assert not fetch.feed(2, frames[2])
    with pytest.raises(Rejected, match="bad-frame"):
        fetch.feed(0, frames[1])
    with pytest.raises(Rejected, match="bad-frame"):
        fetch.feed(99, b"")
    assert not fetch.feed(0, frames[0])
    assert fetch.feed(1, frames[1])
    fetch.finish()
    for body in BODIES:
        assert folder.read(sha256(body), len(body)) == body
    assert not list(folder.partial.iterdir())


def test_fetch_resumes_after_a_restart_and_skips_what_is_held(folder: StateFolder) -> None:
    """A second fetch finds the frames of the first by their hashes, and needs none for objects already held."""
    stream, frames = cut("berlin", BODIES)
    StreamFetch(folder, "s" * 64, stream).feed(1, frames[1])
    again = StreamFetch(folder, "s" * 64, stream)
    assert again.progress.have == 0b010
    for body in BODIES:
        folder.put(sha256(body), len(body), body)
    assert StreamFetch(folder, "s" * 64, stream).progress.done


def test_full_disk_is_named_before_anything_is_fetched(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little space is the device's to mend, and nothing has been written."""
    real = os.statvfs(folder.root)
    full = os.statvfs_result((*real[:4], 1, *real[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _path: full)
    with pytest.raises(Unfit, match="disk-full"):
        StreamFetch(folder, "s" * 64, cut("berlin", BODIES)[0])
    assert not list(folder.partial.iterdir())


def free_bytes(monkeypatch: pytest.MonkeyPatch, folder: StateFolder, total: int) -> None:
    """Let the disk have `total` bytes for this folder, and as many free as its files leave."""
    real = os.statvfs(folder.root)

    def asked(_path: object) -> os.statvfs_result:
        used = sum(path.stat().st_blocks * 512 for path in folder.root.rglob("*") if path.is_file())
        return os.statvfs_result((1, 1, *real[2:4], max(0, total - used), *real[5:]))

    monkeypatch.setattr(os, "statvfs", asked)


def test_space_is_promised_once(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one download still needs is not free for another; the same stream needs it once, a forgotten download not at all."""
    bodies = [[os.urandom(1 << 20)] for _ in range(3)]
    streams = [cut("berlin", body)[0] for body in bodies]
    free_bytes(monkeypatch, folder, RESERVE_BYTES + (5 << 20))
    first, second = (StreamFetch(folder, name * 64, stream) for name, stream in zip("ab", streams, strict=False))
    again = StreamFetch(folder, "a" * 64, streams[0])
    with pytest.raises(Unfit, match="other downloads need"):
        StreamFetch(folder, "c" * 64, streams[2])
    for index, data in enumerate(cut("berlin", bodies[0])[1]):
        first.feed(index, data)
    first.finish()
    assert (first.outstanding(), second.outstanding()) == (0, 2 << 20)
    del first, again, second
    StreamFetch(folder, "c" * 64, streams[2])


def test_what_others_write_meanwhile_leaves_the_reserve(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Space that was there when a fetch began and is gone when a frame comes: disk-full by name, before the reserve is touched."""
    stream, frames = cut("berlin", BODIES)
    free_bytes(monkeypatch, folder, RESERVE_BYTES + (1 << 20))
    fetch = StreamFetch(folder, "s" * 64, stream)
    fetch.feed(0, frames[0])
    (folder.root / "somebody else's").write_bytes(bytes(1 << 20))
    with pytest.raises(Unfit, match="disk-full"):
        fetch.feed(1, frames[1])


def test_spool_keeps_order_and_drops_the_oldest(folder: StateFolder) -> None:
    """Messages leave in order, survive a restart, and the oldest go beyond the bound, counted."""
    spool = Spool(folder.spool)
    for number in range(3):
        spool.add(b"%d" % number)
    again = Spool(folder.spool)
    first = again.oldest()
    assert first == (0, b"0")
    again.sent(0)
    assert again.oldest() == (1, b"1")
    for number in range(MAX_FILES):
        again.add(b"%d" % number)
    assert again.dropped == 2 and again.oldest() == (3, b"0") and len(list(folder.spool.iterdir())) == MAX_FILES


def test_spool_is_bounded_in_bytes_too(folder: StateFolder) -> None:
    """Months without a manager fill no disk, whatever a window weighs; what lay there before the start counts."""
    spool = Spool(folder.spool)
    for _ in range(3):
        spool.add(bytes(MAX_BYTES // 4))
    again = Spool(folder.spool)
    for _ in range(2):
        again.add(bytes(MAX_BYTES // 4))
    assert again.dropped == 1
    assert sum(path.stat().st_size for path in folder.spool.iterdir()) <= MAX_BYTES
