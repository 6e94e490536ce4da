"""What comes in from the manager: messages, documents, frames. What is refused is counted, and whoever sends it gains nothing."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeops.wire import topics
from edgeops.wire.errors import EdgeopsError, Rejected
from edgeops.wire.messages import Bundle
from edgeops.wire.topics import FrameTopic
from edgeops.wire.trust import versions

from ..core.receive import obey
from ..core.record import Record
from ..core.slot import Command
from .documents import Documents
from .downloads import Downloads
from .intake import Intake
from .journal import Sparing
from .ledger import Ledger, Unsaved
from .ports import Link
from .voice import Voice

BLOCK_HEADER = 36
Act = Callable[[Sequence[tuple[str, Command]]], None]


@dataclass(frozen=True, slots=True)
class Hearing:
    """Hears one message at a time; raises Unsaved, and then it was not heard. `store` saves a record, `act` carries out."""

    ledger: Ledger
    intake: Intake
    documents: Documents
    downloads: Sequence[Downloads]
    link: Link
    voice: Voice
    log: Sparing
    store: Callable[[Record], None]
    act: Act

    def message(self, topic: str, data: bytes) -> None:
        """Whatever somebody sent by way of the broker."""
        try:
            parsed = topics.parse(topic)
            if isinstance(parsed, FrameTopic):
                self._frame(parsed.stream, parsed.frame, data)
            elif parsed.noun == "blk":
                self._frame(data[:32].hex(), int.from_bytes(data[32:BLOCK_HEADER]), data[BLOCK_HEADER:])
            elif parsed.noun == "cmd":
                record, commands = obey(self.ledger.record, data)
                self.store(record)
                self.act(commands)
            elif parsed.noun == "doc" or (parsed.noun == "desired" and data):  # an empty one: the retained order was taken away
                self.came(Bundle.decode(data))
        except Unsaved:
            raise
        except EdgeopsError as error:
            self._refused("message", error)
        except Exception:  # whatever the other side found that we did not think of must not end the agent
            self.log.say("internal", f"a message on {topic[:128]} was not understood: {traceback.format_exc()}", "error", "message")
            self._refused("message", Rejected("internal", "not understood"))

    def came(self, bundle: Bundle) -> None:
        """Documents, by way of the broker or over HTTPS."""
        before = versions(self.ledger.record.trust)
        received = self.intake.take(bundle, self.link.way.site if self.link.way else 0)
        self.act(received.commands)
        if received.refused or versions(self.ledger.record.trust) != before:
            self.voice.report_soon()

    def _frame(self, stream: str, index: int, data: bytes) -> None:
        try:
            taken = [each.frame(stream, index, data) for each in self.downloads]
            if not any(taken):
                self.downloads[0].check_late(stream, index, data, self.documents.known.get(stream))
        except Rejected as error:
            self._refused("blocks", error)

    def _refused(self, what: str, error: EdgeopsError) -> None:
        """Count it. Neither a save nor a report each, or a flood would wear out the disk and the link."""
        self.log.say("refused", f"refused {what}: {error}", kind=f"{what}.{error.reason}", what=what, reason=error.reason)
        self.store(self.ledger.record.counted(f"refused_{what}").counted(f"refused_{what}.{error.reason}"))
        self.voice.report_soon()
