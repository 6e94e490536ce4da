"""No error ends the loop: an agent that is started anew would meet the same item again."""

import contextlib
import traceback
from collections.abc import Callable
from typing import Any

from ..core.slot import Build, Event, Failed, Lost, Restarted, Slot, Tick
from .clock import Clock
from .journal import Sparing
from .ledger import Ledger, Unsaved
from .news import Ailing, Crashed, Fallen, Ran


class Composure:
    """Hands each item to `take`. What the disk refuses to save waits; what nobody thought of fails the order at hand, once.

    `feed` brings a slot an event, `run_committed` lets what is committed run, or the build that is kept for its loss: nothing new
    is decided by that. `missed` says that a message was not heard and must be asked for again.
    """

    def __init__(
        self, ledger: Ledger, clock: Clock, log: Sparing, take: Callable[[Any], None], feed: Callable[[str, Event], None],
        run_committed: Callable[[str, Build | None], None],
    ) -> None:  # fmt: skip
        self._ledger, self._clock, self._log = ledger, clock, log
        self._take, self._feed, self._run_committed = take, feed, run_committed
        self._postponed: list[tuple[str, Any]] = []
        self.missed = False

    def handle(self, item: Any) -> None:
        """Take one item. Never raises."""
        try:
            match item:
                case (str(name), Fallen() as fallen):
                    self._fell(name, fallen)
                case _:
                    self._take(item)
        except Unsaved:
            self._put_off(item)
        except Exception:
            self._stumbled(item)

    def go_on(self) -> None:
        """Take again what was put off."""
        waiting, self._postponed = self._postponed, []
        for item in waiting:
            self.handle(item)

    def _fell(self, name: str, fallen: Fallen) -> None:
        """What waits for its commit has failed, under whatever order it waits by now; what is committed is started again."""
        slot = self._ledger.record.slots.get(name, Slot())
        if slot.target and slot.target.build == fallen.build and slot.phase in ("trial", "proven"):
            words = f"the worker died before it was to commit; {fallen.words}"
            self._feed(name, Failed(slot.phase, slot.target.order, self._clock.tick(), fallen.reason, words))
            return
        self._take((name, Crashed(fallen.build, fallen.reason, fallen.words)))
        if slot.phase != "trial":  # there a candidate is about to take the calls
            self._run_committed(name, None)

    def _put_off(self, item: Any) -> None:
        """What the disk does not let us save is not acted upon: events wait, messages are asked for again."""
        if not isinstance(item, tuple):
            self.missed = True
            return
        name, event = item
        failed = isinstance(event, Failed) and event.phase == "trial"
        if failed or isinstance(event, Restarted | Fallen):
            self._run_committed(name, None)
        if isinstance(event, Lost | Ailing):
            if self._is_known(name, event):
                return
            if kept := self._kept_for(name, event):
                self._run_committed(name, kept)
        if not isinstance(event, Tick):
            self._postponed.append(item)

    def _is_known(self, name: str, lost: Lost | Ailing) -> bool:
        """Whether the same loss waits already: a model that cannot run is lost each time it is tried."""
        waiting = (event for slot, event in self._postponed if slot == name and isinstance(event, Lost | Ailing))
        return any(_lost(event) == _lost(lost) for event in waiting)

    def _kept_for(self, name: str, lost: Lost | Ailing) -> Build | None:
        """The build to fall back to, if it is the committed one that was lost."""
        slot = self._ledger.record.slots.get(name, Slot())
        return slot.previous if slot.current and slot.current.release == _lost(lost) else None

    def _stumbled(self, item: Any) -> None:
        """What nobody thought of: counted, and the order at hand has failed, once; what is committed runs in any case."""
        self._log.say("internal", f"not understood: {traceback.format_exc()}", "error")
        with contextlib.suppress(Exception):
            self._ledger.store(self._ledger.record.counted("internal_errors"))
        if not (isinstance(item, tuple) and isinstance(item[1], Event | Ran | Fallen)):
            return
        name, slot = item[0], self._ledger.record.slots.get(item[0], Slot())
        order, now = slot.target.order if slot.target else 0, self._clock.tick()
        failed = Failed(slot.phase, order, now, "internal", "the agent did not understand it")
        try:
            self._feed(name, failed)
        except Unsaved:
            self._put_off((name, failed))
        except Exception:
            self._log.say("internal", f"slot {name} stays as it is: {traceback.format_exc()}", "error", "again", slot=name)
        if not isinstance(item[1], Tick):
            self._run_committed(name, None)


def _lost(event: Lost | Ailing) -> str:
    return event.release if isinstance(event, Lost) else event.build.release
