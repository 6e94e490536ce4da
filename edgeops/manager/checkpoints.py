"""Signed checkpoints of the audit log: made in the database, then sent where whoever can change the database may not reach.

They go to `audit/checkpoints.jsonl`, to the log (`edgeops.audit`), and, retained, to the MQTT topic `e/1/audit`.
"""

import logging
import os
from typing import Any, BinaryIO

from sqlalchemy import Connection

from edgeops.store import audit, outbox, rows
from edgeops.store.tables import checkpoints, marks
from edgeops.wire import envelope, topics
from edgeops.wire.chain import FIRST, Checkpoint

from .hub import Hub

_LOG = logging.getLogger("edgeops.audit")
EXPORTED = "checkpoints-exported"
TOGETHER = 500


def make(hub: Hub) -> None:
    """Sign how far the log has come, unless the newest checkpoint says so already, and send out what has not been sent yet."""
    with hub.store.write() as tx:
        number, digest = audit.last(tx)
        newest = audit.newest_checkpoint(tx)
        if newest:
            _look_back(tx, *newest)
        if number > (newest[0] if newest else 0):
            previous = envelope.digest_of(newest[1], "checkpoint") if newest else FIRST
            made = Checkpoint(hub.settings.fleet, number, digest, hub.now(), previous)
            sealed = envelope.seal("checkpoint", made.payload(), [hub.online])
            rows.put(tx, checkpoints, entry=number, at=made.at, envelope=sealed)
            outbox.post(tx, topics.AUDIT, sealed, 1, True)
    send_out(hub)


def send_out(hub: Hub) -> None:
    """Append to the file, and log, every checkpoint that is not there yet; a killed manager may write one twice, never none."""
    with hub.store.read() as tx:
        found = audit.checkpoints_after(tx, sent_until(tx), TOGETHER)
    if not found:
        return
    path = hub.layout.checkpoints
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with path.open("ab+") as out:
        _drop_torn_line(out)
        out.write(b"".join(b"%s\n" % sealed for _, sealed in found))
        out.flush()
        os.fsync(out.fileno())
    for _, sealed in found:
        _LOG.info("checkpoint %s", sealed.decode())
    with hub.store.write() as tx:
        rows.put(tx, marks, name=EXPORTED, value=found[-1][0])


def sent_until(tx: Connection) -> int:
    """The entry of the newest checkpoint that stands in the file, 0 when none does."""
    mark = rows.get(tx, marks, name=EXPORTED)
    return int(mark["value"]) if mark else 0


def _look_back(tx: Connection, entry: int, sealed: bytes) -> None:
    """Whether the log still holds what we signed last: a cut tail is noticed at the latest after an hour, by ourselves."""
    signed = Checkpoint.parse(envelope.contents(sealed, "checkpoint"))
    held = audit.page(tx, 1, audit.Wanted(before=entry + 1, after=entry - 1))
    if not held or held[0]["digest"] != signed.digest:
        _LOG.error("the audit log is not what its checkpoint for entry %d says: run `edgeops audit verify`", entry)


def _drop_torn_line(out: BinaryIO) -> None:
    """A line that a power cut left unfinished is not marked as sent, so it will be written again."""
    out.seek(0)
    whole = out.read().rfind(b"\n") + 1
    out.truncate(whole)
    out.seek(0, os.SEEK_END)


def listed(hub: Hub, after: int, most: int) -> dict[str, Any]:
    """Checkpoints for entries after `after`, oldest first, with every root whose online key may have signed one."""
    with hub.store.read() as tx:
        found = audit.checkpoints_after(tx, after, most)
    roots = [path.read_text("utf-8") for path in hub.layout.all_of("root")]
    return {"checkpoints": [{"entry": entry, "envelope": sealed.decode()} for entry, sealed in found], "roots": roots}
