"""How an order ends: back to idle with an outcome in the outbox; by which mark a failed release is known again."""

import unicodedata
from dataclasses import replace

from .slot import MAX_BAD, MAX_OUTBOX, Outcome, Slot, Target

DAMAGED = ("bad-object", "missing-object", "bad-document", "missing-document")
"""What the disk did to a build is no fault of its release."""


def end(slot: Slot, verdict: str, reason: str = "", detail: str = "") -> Slot:
    """The slot at rest. Without a target there is nothing to end."""
    target = slot.target
    if target is None:
        return slot
    release = target.build.release if target.build else ""
    outcome = Outcome(slot.order, target.rollout, release, verdict, plain(reason, 64), plain(detail, 500))
    rested = replace(
        slot, phase="idle", attempts=0, restarts=0, deadline=0, failure=("", ""), unproven=False, cleared=False, calm=False
    )
    return tell(rested, outcome)


def tell(slot: Slot, outcome: Outcome) -> Slot:
    """The slot with one more outcome that waits to be acknowledged; the oldest goes when there are too many."""
    return replace(slot, last=outcome, outbox=(*slot.outbox, outcome)[-MAX_OUTBOX:])


def plain(text: str, most: int) -> str:
    """What a worker may have had a hand in, as a record can hold it: NFC, printable, at most so many bytes."""
    shown = "".join(one if one.isprintable() else " " for one in unicodedata.normalize("NFC", text[:most]))
    return shown.encode()[:most].decode(errors="ignore")


def mark(target: Target) -> str:
    """By what a release that failed in a rollout is known again in that rollout."""
    return f"{target.build.release if target.build else ''}/{target.rollout}"


def blame(slot: Slot, target: Target, reason: str = "") -> tuple[str, ...]:
    """The failed releases that are known, with this one, unless `reason` says that only its bytes were damaged."""
    if reason in DAMAGED:
        return slot.bad
    return (*(known for known in slot.bad if known != mark(target)), mark(target))[-MAX_BAD:]
