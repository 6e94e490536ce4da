"""The record in memory and on disk. What decides is saved before it is acted upon; what only counts may wait a moment."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

from edgeops.wire.errors import Unfit

from ..core.record import Record, lasting
from .disk import StateFolder
from .journal import say

COUNTS_S = 30.0
AHEAD = 100
UNSURE_AHEAD = 1 << 32
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0


class Unsaved(Unfit):
    """The disk refuses, so nothing has changed and nothing may be acted upon; the event comes again later."""


class Ledger:
    """The only writer of the record. While the disk refuses, saves are tried again after 1, 2, 4 … 60 seconds."""

    def __init__(self, folder: StateFolder, now: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._now = folder, now
        self.record: Record = folder.load()
        self.refusals = 0
        self._saved = self.record
        self._kept: Record | None = None
        self._saved_at = now()
        # Numbers above what an unsure record says may have been used up: from now on both copies have to say so.
        self._reports = self.record.report_seq + (UNSURE_AHEAD if self.record.unsure else 0)
        self._twice = self.record.unsure
        # A save that failed may have reached the disk all the same: what it added, no report before this start has told.
        self.record = replace(self.record, report_seq=self._reports).untold(self._reports)
        self._wait, self._again = 0.0, 0.0

    @property
    def ready(self) -> bool:
        """Whether a save would be tried now."""
        return self._now() >= self._again

    def store(self, record: Record) -> None:
        """Make `record` the record; on return it is durable, but for counters alone. Raises Unsaved."""
        record = record.noted(self._reports)
        if replace(record, counters=self._saved.counters) == self._saved:
            self.record = record
        else:
            self._save(record)

    def settle(self, at_once: bool = False) -> None:
        """Save counters that wait: every 30 seconds, or at once before leaving. Never raises."""
        self._again = 0.0 if at_once else self._again
        if self.record != self._saved and (at_once or self._now() - self._saved_at >= COUNTS_S):
            with contextlib.suppress(Unsaved):
                self._save(self.record)

    def report_number(self) -> int:
        """A number greater than all before, after restarts too: a hundred are put aside with one save. Raises Unsaved."""
        if self._reports >= self.record.report_seq:
            self.store(replace(self.record, report_seq=self._reports + AHEAD))
        self._reports += 1
        return self._reports

    def _save(self, record: Record) -> None:
        if not self.ready:
            raise Unsaved("disk", "the disk refused a moment ago")
        try:
            self._folder.save(record)
            if self._twice:
                self._folder.save(record)
        except Unfit as error:
            self.refusals += 1
            if not self._wait:
                text = f"the record cannot be saved, so new orders wait; what runs goes on: {error}"
                say("disk", text, "error", reason=error.reason)
            self._wait = min(self._wait * 2 or FIRST_WAIT_S, LONGEST_WAIT_S)
            self._again = self._now() + self._wait
            raise Unsaved(error.reason, error.message) from None
        if self._wait:
            say("disk", "the record can be saved again", refusals=self.refusals)
        self._wait, self._twice = 0.0, False
        self._saved_at = self._now()
        self._saved = self.record = record
        self._keep()

    def _keep(self) -> None:
        """A third copy of what must outlive both others, whenever that changes; tried again at the next save."""
        if lasting(self.record) != self._kept:
            with contextlib.suppress(Unfit):
                self._folder.keep(self.record)
                self._kept = lasting(self.record)
