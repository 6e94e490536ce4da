"""The signed documents at hand: those the slots need on disk and in memory, the most recent others in memory only."""

import contextlib
from collections.abc import Mapping

from edgeops.wire.errors import Rejected, Unfit

from ..core.record import Record
from ..core.slot import Target
from ..core.update import keep
from .disk import StateFolder
from .journal import Sparing

MOST = 64


class Documents:
    """Envelopes by the digest of their payload, each verified when it came."""

    def __init__(self, folder: StateFolder, record: Record, log: Sparing) -> None:
        self._folder, self._log = folder, log
        known: dict[str, bytes] = {}
        for name in needed(record):
            with contextlib.suppress(Rejected, Unfit):
                known[name] = folder.document(name)
        self.known: Mapping[str, bytes] = known

    def add(self, record: Record, new: Mapping[str, bytes]) -> None:
        """Take `new`. What `record` needs goes to disk before it is stored; what does not fit there fails its fetch later."""
        every, wanted = {**self.known, **new}, needed(record)
        for name in sorted(wanted & every.keys()):
            try:
                self._folder.put_document(name, every[name])
            except Unfit as error:
                self._log.say("disk", f"document {name[:12]} is not kept: {error}", reason=error.reason, document=name)
        recent = set(list(every)[-MOST:])
        self.known = {name: document for name, document in every.items() if name in wanted | recent}

    def restore(self, record: Record) -> None:
        """Write again what is needed and is not on disk as it should be."""
        self.add(record, {})

    def for_fetch(self, target: Target) -> bytes:
        """The stream list of `target`, once all its documents are on disk; raises Rejected("missing-document"), Unfit (disk)."""
        release = target.build.release if target.build else ""
        for name in sorted({target.stream, release} & self.known.keys()):
            self._folder.put_document(name, self.known[name])
        return self._folder.document(target.stream)


def needed(record: Record) -> set[str]:
    """Documents that must be on disk for the slots as they are, and to find the manager."""
    kept = {build for slot in record.slots.values() for build in keep(slot)}
    names = {*record.sites, *(build.release for build in kept), *(build.stream for build in kept)}
    return names | {slot.target.stream for slot in record.slots.values() if slot.target and slot.phase != "idle"} - {""}
