"""What an operator may do to a rollout, and when: the table of transitions, and what a barrier forbids beside it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edgeops.rollout.barrier import is_undecided
from edgeops.rollout.state import Aborted, Advanced, OperatorEvent, Paused, Resumed, Rollout, Started, Status
from edgeops.wire.errors import Misuse

TRANSITIONS: Mapping[tuple[Status, str], Status] = MappingProxyType(
    {
        ("pending", "start"): "running",
        ("pending", "abort-keep"): "aborted",
        ("pending", "abort-revert"): "aborted",
        ("running", "pause"): "paused",
        ("running", "advance"): "running",
        ("running", "trip"): "halted",
        ("running", "complete"): "finished",
        ("running", "abort-keep"): "aborted",
        ("running", "abort-revert"): "reverting",
        ("paused", "resume"): "running",
        ("paused", "trip"): "halted",
        ("paused", "abort-keep"): "aborted",
        ("paused", "abort-revert"): "reverting",
        ("halted", "resume"): "running",
        ("halted", "abort-keep"): "aborted",
        ("halted", "abort-revert"): "reverting",
        ("reverting", "reverted"): "aborted",
        ("finished", "abort-revert"): "reverting",
        ("aborted", "abort-revert"): "reverting",
    }
)


def word_of(event: OperatorEvent) -> str:
    """The word under which an operator event stands in `TRANSITIONS`."""
    if isinstance(event, Aborted):
        return f"abort-{event.mode}"
    return {Started: "start", Paused: "pause", Resumed: "resume", Advanced: "advance"}[type(event)]


def allowed(status: Status) -> tuple[str, ...]:
    """What an operator may do in a status, for error messages and user interfaces."""
    own = ("trip", "complete", "reverted")
    return tuple(word for (at, word) in TRANSITIONS if at == status and word not in own)


def check(r: Rollout, word: str) -> None:
    """Raise `Misuse("illegal-transition" | "barrier-undecided" | "barrier-broken")` for what an operator may not do now."""
    name = r.plan.rollout_id
    if (r.status, word) not in TRANSITIONS:
        can = ", ".join(allowed(r.status)) or "nothing"
        raise Misuse("illegal-transition", f"rollout {name} is {r.status}: {word} is not possible; possible now: {can}")
    if word == "advance" and is_undecided(r):
        text = f"advance would leave wave {r.current + 1} with a barrier nobody decides on; wait for it, or abort the rollout"
        raise Misuse("barrier-undecided", f"rollout {name}: {text}")
    if word == "resume" and (back := [index + 1 for index, wave in enumerate(r.waves) if wave.decision == "back"]):
        text = f"the devices of wave {back[0]} were given back what they had, all of them; abort it and start another"
        raise Misuse("barrier-broken", f"rollout {name}: {text}")
