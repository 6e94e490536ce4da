"""What the device says, signed with its identity: that it is there, how everything stands, what it has counted, that it leaves."""

from collections.abc import Callable, Mapping
from typing import Protocol

from edgeops.wire import envelope, topics
from edgeops.wire.canonical import LIMIT
from edgeops.wire.conditions import Fact
from edgeops.wire.keys import Signer
from edgeops.wire.messages import Presence, Want, seal_tele
from edgeops.wire.trust import Capabilities, versions

from . import facts, reporting
from .disk import StateFolder
from .leases import held
from .ledger import Ledger, Unsaved
from .spool import Spool

REPORT_S = 30.0
NEWS_S = 5.0
PROVOKED_S = 1.0


class Mouth(Protocol):
    """The way out."""

    connected: bool

    def publish(self, topic: str, payload: bytes, qos: int = 1) -> bool:
        """Hand a message over; False when not connected."""


class Voice:
    """Signs and sends. `lively` are counts since this start that others keep up to date; they ride on every report, and so do the
    conditions that slots wait for (`waits`) and the last words of each slot's worker (`crashes`). `sensed` are facts for births.
    """

    def __init__(
        self, folder: StateFolder, ledger: Ledger, signer: Signer, boot: str, device: Capabilities, now: Callable[[], float]
    ) -> None:
        self._folder, self._ledger, self._signer, self._boot, self._device, self._now = folder, ledger, signer, boot, device, now
        self._spool = Spool(folder.spool, folder.files)
        self._reported = 0.0
        self._wait = REPORT_S
        self._at = now() + REPORT_S
        self.lively = {"calls": 0, "errors": 0}
        self.waits: Mapping[str, tuple[str, ...]] = {}
        self.crashes: dict[str, str] = {}
        self.sensed: Callable[[], Mapping[str, Fact]] = dict
        self.mouth: Mouth | None = None

    def presence(self, kind: str, nonce: str = "", seq: int = 0) -> tuple[str, bytes]:
        """Topic and message of a birth (with what we are), goodbye or last will."""
        trust, birth = self._ledger.record.trust, kind == "birth"
        message = Presence(
            trust.fleet, trust.device, trust.incarnation, self._boot, kind, nonce,
            facts.birth(self._device) if birth else {}, facts.facts(self._folder.root, self.sensed()) if birth else {},
            versions(trust) if birth else {}, seq,
        )  # fmt: skip
        return topics.up(trust.device, "presence"), envelope.seal("presence", message.payload(), [self._signer])

    def birth(self, nonce: str) -> bool:
        """Say that we are here; the manager answers with the time and with what we should run. False when it could not be said."""
        try:
            self._say(*self.presence("birth", nonce, self._ledger.report_number()))
        except Unsaved:  # without a number nobody would believe it
            return False
        self.report()
        return True

    def want(self, want: Want) -> None:
        """Ask for missing frames."""
        self._say(topics.up(self._ledger.record.trust.device, "want"), want.encode())

    def report_soon(self) -> None:
        """For what others can provoke: at most one report a second."""
        self._wait = PROVOKED_S
        self._at = min(self._at, self._reported + PROVOKED_S)

    def report(self, news: bool = True) -> None:
        """Say how everything stands. News is repeated after 5, 10 and 20 seconds, since nobody may have been listening."""
        self._reported = self._now()
        self._wait = NEWS_S if news else min(2 * self._wait, REPORT_S)
        self._at = self._reported + self._wait
        if self.mouth is None or not self.mouth.connected:
            return
        try:
            number = self._ledger.report_number()
        except Unsaved:
            return
        lively = {**self.lively, **self._counted()}
        state = reporting.state(self._ledger.record, self._boot, lively, number, self.waits, self.crashes)
        self._say(topics.up(state.device, "state"), envelope.seal("state", state.payload(), [self._signer]))

    def _counted(self) -> dict[str, int]:
        leases = held(self._folder.root, self._folder.files)
        committed = {slot.current.release for slot in self._ledger.record.slots.values() if slot.current}
        return {
            "spool_dropped": self._spool.dropped, "saves_refused": self._ledger.refusals,
            "leases": len(leases), "leases_behind": sum(lease.get("digest") not in committed for lease in leases),
        }  # fmt: skip

    def telemetry(self, window: bytes | None, calls: int, errors: int) -> None:
        """Keep what a worker has counted until it can be sent."""
        for name, more in (("calls", calls), ("errors", errors)):
            self.lively[name] = min(self.lively[name] + more, LIMIT)
        if window is not None:
            self._spool.add(seal_tele(window, self._signer))

    def speak(self) -> None:
        """Send what is due: the next report, then telemetry that waits."""
        if self._now() >= self._at:
            self.report(news=self._wait < NEWS_S)
        topic = topics.up(self._ledger.record.trust.device, "tele")
        while self.mouth and self.mouth.connected and (item := self._spool.oldest()) is not None:
            if not self._say(topic, item[1]):
                return
            self._spool.sent(item[0])

    def _say(self, topic: str, payload: bytes) -> bool:
        return self.mouth is not None and self.mouth.publish(topic, payload)
