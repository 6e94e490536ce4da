"""Draws the update machine by asking it: `python -m tests.crash.diagram > docs/update-machine.md`.

Every phase it can be in meets every kind of event; where that leads is an arrow. Nothing here says what the machine should do.
"""

import functools
from collections.abc import Iterator
from dataclasses import replace

from edgeops.wire.conditions import Conditions
from edgeops_agent.core.slot import (
    PHASES,
    Acked,
    Build,
    Cleared,
    Done,
    Event,
    Failed,
    Lost,
    Offered,
    Restarted,
    Sensed,
    Slot,
    Target,
    Tick,
    Voided,
)
from edgeops_agent.core.update import MAX_RESTARTS, step

OLD, NEW, NEXT = (Build(letter * 64, "fp32", "m", number) for number, letter in enumerate("abc"))
GATES = Conditions(("!metered",), ("parked", "consent"), ("online",), "cell")
OPEN = {"metered": False, "parked": True, "consent": "yes", "online": True}
TARGETS = {
    "": Target(2, "run", "r", NEW), "conditions": Target(2, "run", "r", NEW, conditions=GATES),
    "prefetch": Target(2, "prefetch", "r", NEW), "barrier": Target(2, "run", "r", NEW, conditions=Conditions(barrier="cell")),
}  # fmt: skip
LATER = Target(3, "run", "r", NEXT, conditions=GATES)
Arrow = tuple[str, str, str]
ABOUT = (
    "Drawn by `python -m tests.crash.diagram > docs/update-machine.md`, which asks the machine itself",
    "(`agent/edgeops_agent/core/update.py`); a test fails when this page is stale. `waiting`, `ready` and `proven` are passed",
    "over where an order carries no conditions and no barrier. Every phase but `idle` has a deadline. Too many restarts are",
    "more than the order's `attempts` while the release could have caused them, or more than",
    f"{MAX_RESTARTS} of any kind: outcome `crash-loop`.",
)


def events(slot: Slot) -> Iterator[tuple[str, Event]]:
    """Every kind of event that a slot in this phase may meet, by the words on its arrow."""
    for words, target in TARGETS.items():
        yield (f"order with {words}" if words else "order"), Offered(target, 1)
    yield "order to hold nothing", Offered(Target(3, "none"), 1)
    yield "newer order", Offered(LATER, 1)
    yield "done", Done(slot.phase, 2, 1)
    yield "failed", Failed(slot.phase, 2, 1, "x")
    yield "unfit", Failed(slot.phase, 2, 1, "x", unfit=True)
    yield "deadline", Tick(slot.deadline)
    yield "conditions hold", Sensed(OPEN, 1)
    yield "conditions do not hold", Sensed({}, 1)
    yield "consent denied", Sensed({**OPEN, "consent": "no"}, 1)
    yield "the manager opens the barrier", Cleared(2)
    yield "restart", Restarted(1)
    yield "the candidate is lost", Lost(NEW.release, 1, "x")
    yield "the epoch is raised", Voided()
    yield "acknowledged", Acked(2)


def reached() -> dict[Slot, str]:
    """Slots in every phase, found by walking from rest, each with what its order carried."""
    found: dict[Slot, str] = {Slot(current=OLD, order=1): ""}
    waiting = list(found)
    while waiting:
        slot = waiting.pop()
        for words, event in events(slot):
            after = replace(step(slot, event)[0], outbox=(), last=None)  # what was said before leads nowhere else
            if after not in found and after.order <= 2 and after.restarts <= 4:
                found[after] = words
                waiting.append(after)
    return found


@functools.cache
def arrows() -> tuple[Arrow, ...]:
    """(phase, words, phase after) wherever an event changes the phase, or ends the order at hand."""
    drawn: set[Arrow] = set()
    for slot in reached():
        for words, event in events(slot):
            after, _ = step(slot, event)
            verdict = after.last.verdict if after.last and len(after.outbox) > len(slot.outbox) else ""
            if words == "restart" and after.phase in ("idle", "rollback"):
                words = "too many restarts"
            if after.phase != slot.phase or verdict:
                said = f"{words}: {verdict}" if verdict else words
                drawn.add((slot.phase, said, after.phase))
    return tuple(sorted(drawn, key=lambda one: (PHASES.index(one[0]), PHASES.index(one[2]), one[1])))


def page() -> str:
    """The whole page."""
    by_ends: dict[tuple[str, str], list[str]] = {}
    for source, words, target in arrows():
        by_ends.setdefault((source, target), []).append(words)
    lines = [f"    {source} --> {target}: {'<br>'.join(texts)}" for (source, target), texts in by_ends.items()]
    rows = [f"| {source} | {target} | {'; '.join(texts)} |" for (source, target), texts in by_ends.items()]
    return "\n".join([
        "# The update machine of a slot", "",
        *ABOUT, "",
        "```mermaid", "stateDiagram-v2", "    [*] --> idle", *lines, "```", "",
        "| from | to | when: outcome |", "|---|---|---|", *rows, "",
    ])  # fmt: skip


if __name__ == "__main__":
    print(page(), end="")
