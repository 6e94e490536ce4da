"""Objects on disk: only under their own hash, whole or not at all."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeops.store import Blobs
from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.keys import sha256

DATA = bytes(range(256)) * 10
LIMIT = 1 << 20


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    """An empty store."""
    return Blobs(tmp_path / "blobs")


def test_what_was_put_can_be_read_whole_and_in_ranges(blobs: Blobs) -> None:
    """Reading gives back the same bytes."""
    digest = sha256(DATA)
    assert blobs.put(digest, DATA, LIMIT) == len(DATA) == blobs.size(digest)
    assert blobs.read(digest) == DATA
    assert blobs.read(digest, 100, 7) == DATA[100:107]
    assert b"".join(blobs.chunks(digest, 5, 1000)) == DATA[5:1005]


def test_bytes_under_another_name_are_refused_and_leave_nothing(blobs: Blobs) -> None:
    """A wrong hash stores nothing, not even a temporary file."""
    with pytest.raises(Rejected, match="bad-object"):
        blobs.put(sha256(b"else"), DATA, LIMIT)
    assert [path for path in blobs.folder.rglob("*") if path.is_file()] == []


def test_an_upload_that_breaks_off_leaves_nothing(blobs: Blobs) -> None:
    """An exception while bytes arrive keeps the store as it was."""

    def broken() -> Iterator[bytes]:
        yield DATA
        raise ConnectionError

    with pytest.raises(ConnectionError):
        blobs.put(sha256(DATA), broken(), LIMIT)
    assert blobs.size(sha256(DATA)) is None
    assert [path for path in blobs.folder.rglob("*") if path.is_file()] == []


def test_the_limit_holds_to_the_byte(blobs: Blobs) -> None:
    """An object of exactly the limit passes, one byte more does not."""
    blobs.put(sha256(DATA), DATA, len(DATA))
    with pytest.raises(Misuse, match="too-large"):
        blobs.put(sha256(DATA + b"x"), [DATA, b"x"], len(DATA))


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 65, "0" * 63 + "/"])
def test_only_digests_are_names(blobs: Blobs, name: str) -> None:
    """No name can reach outside the folder."""
    with pytest.raises(Misuse, match="bad-digest"):
        blobs.read(name)


def test_an_unknown_object_says_so(blobs: Blobs) -> None:
    """Reading what is not there is a Misuse with a reason."""
    assert blobs.size("0" * 64) is None
    with pytest.raises(Misuse, match="unknown-object"):
        blobs.read("0" * 64)
