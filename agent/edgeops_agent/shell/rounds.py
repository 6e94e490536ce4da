"""What comes round several times a second: a step that stumbles is left out, this once; nothing else is, least of all the agent."""

import contextlib
import traceback
from collections.abc import Iterator

from ..core.record import Record
from ..core.slot import Tick
from .journal import Sparing
from .ledger import Ledger


@contextlib.contextmanager
def step(ledger: Ledger, log: Sparing, name: str) -> Iterator[None]:
    """One step of a round, whose `name` comes from a small set. What it raises is told, counted and ends here."""
    try:
        yield
    except Exception:
        log.say("internal", f"{name} left out: {traceback.format_exc()}", "error", name)
        with contextlib.suppress(Exception):
            ledger.store(ledger.record.counted("internal_errors"))


def overdue(record: Record, now: int) -> list[tuple[str, Tick]]:
    """The slots whose time has run out, and what they are told."""
    return [(name, Tick(now)) for name, slot in record.slots.items() if slot.phase != "idle" and now >= slot.deadline]
