"""Signed documents as they come: judged by the core with the clock and the open nonce, what must be kept is kept, then stored."""

from collections.abc import Callable
from dataclasses import replace

from edgeops.wire.errors import Unfit
from edgeops.wire.messages import Bundle
from edgeops.wire.root import Site
from edgeops.wire.trust import Capabilities

from ..core.receive import Received, Situation, receive
from ..core.record import Record
from .clock import Clock
from .disk import StateFolder
from .documents import Documents
from .identity import Paths
from .journal import Sparing
from .ledger import Ledger, Unsaved
from .reach import adopt, keep_site, read_sites

ASTRAY = ("[expired]", "[time-floor]", "[epoch]", "[unknown-key]")


class Intake:
    """Takes bundles. `store` saves a record; `moved` hears that the ways to the manager have changed, `astray` that
    documents look as if a newer root was missed, `draw` gives random bytes."""

    def __init__(
        self, folder: StateFolder, ledger: Ledger, documents: Documents, clock: Clock, device: Capabilities, log: Sparing,
        store: Callable[[Record], None], moved: Callable[[], None], astray: Callable[[], None], draw: Callable[[int], bytes],
    ) -> None:  # fmt: skip
        self._folder, self._paths, self._ledger = folder, Paths(folder.root, folder.files), ledger
        self._documents, self._clock, self._device, self._log = documents, clock, device, log
        self._store, self._moved, self._astray, self._draw = store, moved, astray, draw

    def begin(self) -> None:
        """Take over the site that enrolment left; what the disk refuses now is tried at the next start."""
        try:
            record = adopt(self._folder, self._paths, self._ledger.record)
            if record != self._ledger.record:
                self._ledger.store(record)
        except Unfit as error:
            self._log.say("disk", f"the site document is not taken over yet: {error}", reason=error.reason)

    def sites(self) -> tuple[Site, ...]:
        """The site documents at hand, best first."""
        return read_sites(self._folder, self._paths, self._ledger.record)

    def ask(self) -> str:
        """A new nonce for a birth; only its answer will be believed."""
        return self._clock.ask(self._draw(32).hex())

    def take(self, bundle: Bundle, by_site: int = 0) -> Received:
        """Judge, keep, store, believe; raises Unsaved, and then nothing has happened. `by_site` is whose endpoint brought it."""
        clock = self._clock
        situation = Situation(
            clock.now(), clock.tick(), clock.nonce, self._device, self._documents.known, clock.asked, clock.wall(), clock.sure
        )
        before = self._ledger.record
        received = receive(before, bundle, situation)
        record = received.record
        if received.time and by_site == record.trust.site_version:
            record = replace(record, sites=record.sites[:1])  # the manager itself has answered by way of the newest site
        self._keep(received.site)
        self._documents.add(record, received.documents)
        self._store(record)
        self._believe(received)
        if record.sites != before.sites:
            self._moved()
        for line in received.refused:
            what, reason = line.partition(":")[0], line.rpartition("[")[2][:-1]
            self._log.say("refused", f"refused {line}", kind=what, what=what, reason=reason)
        return received

    def _keep(self, site: bytes | None) -> None:
        try:
            if site:
                keep_site(self._folder, site)
        except Unfit as error:
            raise Unsaved(error.reason, error.message) from None

    def _believe(self, received: Received) -> None:
        if received.anew:
            self._clock.forget(received.record.trust.time_floor)
        if received.time:
            self._clock.believe(received.time)
        if any(line.endswith(ASTRAY) for line in received.refused):
            self._astray()
