"""What slots that wait at a gate are told: the device's facts, whether the manager is heard, what a person has said."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from edgeops.wire.conditions import CONSENT, ONLINE, Fact, unmet
from edgeops.wire.trust import current_root

from ..core.record import Record
from ..core.slot import GATED, Sensed, Slot
from .clock import Clock
from .consent import Consent


class Senses(Protocol):
    """Who knows facts of the device; see `senses.Senses`."""

    def start(self) -> None:
        """Begin looking."""

    def stop(self) -> None:
        """Look no more."""

    def latest(self) -> Mapping[str, Fact]:
        """What was seen last and still holds; never waits."""

    def eager(self, waiting: bool) -> None:
        """Whether somebody waits for a condition."""


MakeSenses = Callable[[Path, Callable[[], int | None]], Senses]


class Gates:
    """Tells a slot what is known when it asks, and again when one of its conditions has begun or ceased to hold.

    `heard` says whether the manager is reached now. `waits` names per slot the conditions that do not hold.
    """

    def __init__(self, senses: Senses, consent: Consent, clock: Clock, heard: Callable[[], bool]) -> None:
        self._senses, self._consent, self._clock, self._heard = senses, consent, clock, heard
        self._told: dict[str, tuple[object, ...]] = {}
        self.waits: dict[str, tuple[str, ...]] = {}

    def ask(self, slot: str) -> None:
        """Tell `slot` even if nothing is new."""
        self._told.pop(slot, None)

    def news(self, record: Record) -> Iterator[tuple[str, Sensed]]:
        """What to tell whom now."""
        self._senses.eager(any(slot.phase in GATED for slot in record.slots.values()))
        for name, slot in record.slots.items():
            terms = slot.target.gate(slot.phase) if slot.target else ()
            if slot.target is None or slot.phase not in GATED or (slot.phase == "fetch" and not terms):
                self._told.pop(name, None)
                self.waits.pop(name, None)
                continue
            facts = self._facts(record, name, slot)
            missing = self.waits[name] = unmet(terms, facts)
            seen = slot.phase, slot.target.order, missing, facts.get(CONSENT)
            if self._told.get(name) != seen:
                self._told[name] = seen
                yield name, Sensed(facts, self._clock.tick())

    def _facts(self, record: Record, name: str, slot: Slot) -> dict[str, Fact]:
        target = slot.target
        release = target.build.release if target and target.build else ""
        said = self._consent.of(name, current_root(record.trust).epoch, target.order if target else 0, release)
        return {**self._senses.latest(), ONLINE: self._heard(), **({CONSENT: said} if said else {})}
