"""Where the devices of a rollout are on their way, by their own latest account, and what those that wait are waiting for."""

from dataclasses import dataclass

from sqlalchemy import Connection, select

from edgeops.rollout.plan import Plan
from edgeops.store.tables import assignments, reports
from edgeops.wire.conditions import Conditions
from edgeops.wire.fields import Fields
from edgeops.wire.messages import SlotReport

from .conduct import AT_WORK


@dataclass(frozen=True, slots=True)
class At:
    """The phase of a device that has not ended yet; `waits` is empty unless it waits."""

    phase: str
    waits: str


def of(tx: Connection, rollout: str, plan: Plan) -> dict[str, At]:
    """By device, for those that were offered the release and work on it by their latest report."""
    mine = (assignments.c.rollout == rollout) & assignments.c.status.in_(("offered", *AT_WORK))
    query = select(assignments.c.device, assignments.c.slot, reports.c.slots)
    found: dict[str, At] = {}
    for device, slot, slots in tx.execute(query.join(reports, reports.c.device == assignments.c.device).where(mine)):
        if slot not in slots:
            continue
        report = SlotReport.parse(Fields.of(slots[slot], "report"))
        if (report.rollout, report.target) == (rollout, plan.release) and report.phase != "idle":
            found[device] = At(report.phase, waits_for(report, plan.conditions))
    return found


def waits_for(report: SlotReport, conditions: Conditions) -> str:
    """What a device waits for: in its own words, else all that its order has it wait for in this phase."""
    terms = {"waiting": conditions.fetch, "ready": conditions.activate, "proven": conditions.commit}.get(report.phase)
    if terms is None:
        return ""
    barrier = ("the barrier",) if report.phase == "proven" and conditions.barrier else ()
    return report.detail or ", ".join((*terms, *barrier))
