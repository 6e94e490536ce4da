"""Checkpoints of the audit log leave the database: signed, chained, in a file, in the log, on MQTT, and not lost by a kill."""

import logging
from pathlib import Path

import pytest
from manager_house import Clock
from sqlalchemy import text

from edgeops.manager import checkpoints
from edgeops.manager.hub import Hub
from edgeops.store import audit, outbox, rows
from edgeops.store.tables import marks
from edgeops.wire import topics
from edgeops.wire.chain import check_chain, read_checkpoints, root_chain


def deed(hub: Hub, count: int = 1) -> None:
    """Something is done."""
    with hub.store.write() as tx:
        for _ in range(count):
            audit.write(tx, hub.now(), "me", "act", "thing")


def lines(hub: Hub) -> list[bytes]:
    """The file's."""
    return hub.layout.checkpoints.read_bytes().splitlines()


def covered(hub: Hub) -> list[int]:
    """Entries of the checkpoints in the file, verified as an auditor does."""
    fleet, keys, _ = root_chain([path.read_bytes() for path in hub.layout.all_of("root")], hub.root_pin)
    found, finding = read_checkpoints(lines(hub), fleet, keys, "file")
    assert finding is None
    with hub.store.read() as tx:
        assert check_chain(audit.walk(tx), found).finding is None
    return [one.entry for one in found]


def test_a_checkpoint_goes_everywhere(hub: Hub, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Database, file, log and MQTT hold the same envelope; the next one follows on it; without a deed there is none."""
    caplog.set_level(logging.INFO, "edgeops.audit")
    deed(hub)
    checkpoints.make(hub)
    with hub.store.read() as tx:
        (letter,) = [one for one in outbox.waiting(tx, 100) if one.topic == topics.AUDIT]
        newest = audit.newest_checkpoint(tx)
    assert newest and letter.retain and lines(hub) == [letter.payload] == [newest[1]]
    assert caplog.messages == [f"checkpoint {newest[1].decode()}"]
    checkpoints.make(hub)
    assert len(lines(hub)) == 1
    clock.now += 3600
    deed(hub, 3)
    checkpoints.make(hub)
    first, second = covered(hub)
    assert second == first + 3
    answer = checkpoints.listed(hub, first, 10)
    assert [row["entry"] for row in answer["checkpoints"]] == [second]
    assert answer["roots"] == [hub.root_document.decode()]


@pytest.mark.parametrize("torn", [b"", b'{"payl'])
def test_a_kill_loses_no_checkpoint(hub: Hub, torn: bytes) -> None:
    """Killed before the file was written, or while it was: the next one writes both."""
    deed(hub)
    checkpoints.make(hub)
    whole = hub.layout.checkpoints.read_bytes()
    deed(hub)
    checkpoints.make(hub)
    entries = covered(hub)
    hub.layout.checkpoints.write_bytes(whole + torn)
    with hub.store.write() as tx:
        rows.put(tx, marks, name=checkpoints.EXPORTED, value=entries[0])
    checkpoints.make(hub)
    assert covered(hub) == entries


def test_a_kill_after_the_file_was_written(hub: Hub) -> None:
    """A line may stand there twice, which is no finding."""
    deed(hub)
    checkpoints.make(hub)
    with hub.store.write() as tx:
        rows.drop(tx, marks, name=checkpoints.EXPORTED)
    checkpoints.make(hub)
    assert len(lines(hub)) == 2
    assert len(covered(hub)) == 1


@pytest.mark.parametrize("statement", ["DELETE FROM audit WHERE id > 1", "UPDATE audit SET digest = 'x' WHERE id = 3"])
def test_the_manager_notices_a_cut_or_changed_tail_itself(hub: Hub, caplog: pytest.LogCaptureFixture, statement: str) -> None:
    """What its newest checkpoint was about is gone or another: an error in the log."""
    deed(hub, 5)
    with hub.store.write() as tx:
        tx.execute(text("DELETE FROM audit WHERE id > 3"))
    checkpoints.make(hub)
    assert not caplog.records
    with hub.store.write() as tx:
        tx.execute(text(statement))
    checkpoints.make(hub)
    assert "run `edgeops audit verify`" in caplog.text


def test_a_full_disk_is_tried_again(hub: Hub) -> None:
    """Where the file cannot be written the checkpoint waits in the database."""
    deed(hub)
    hub.layout.checkpoints.parent.write_bytes(b"a file where a folder belongs")
    with pytest.raises(OSError, match="audit"):
        checkpoints.make(hub)
    hub.layout.checkpoints.parent.unlink()
    checkpoints.make(hub)
    assert covered(hub)


def test_the_file_is_its_owners(hub: Hub) -> None:
    """Nobody else may even look."""
    deed(hub)
    checkpoints.make(hub)
    assert Path(hub.layout.checkpoints).parent.stat().st_mode & 0o077 == 0
