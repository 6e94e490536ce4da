"""What a device's reported state means for the rollouts it takes part in: started, settled, or back at the previous release."""

from typing import Any, cast

from sqlalchemy import Connection

from edgeops.rollout.state import DeviceStarted, Event, Outcome, Relapsed, Reverted, Verdict
from edgeops.store import rows
from edgeops.store.rows import Row
from edgeops.store.tables import assignments, devices
from edgeops.wire.messages import OutcomeReport, SlotReport, State

from . import barriers
from .conduct import AT_WORK, apply, load
from .desire import push
from .hub import Hub

OUTCOMES = ("committed", "committed-unproven", "rolled-back", "failed", "unfit")
WORKING = ("fetch", "verify", "install", "ready", "trial", "proven", "rollback")
RESTING = ("idle", "committed")
LOOKED_AT = ("offered", *AT_WORK, "recalled")
KEPT = ("committed", "committed-unproven")
UNDER_WAY = ("running", "paused", "halted")
DAMAGED = ("bad-object", "missing-object", "bad-document", "missing-document")
"""What a disk did to a build; the device fetches it anew, and the release is not to blame."""


def observe(hub: Hub, tx: Connection, state: State, heard: int = 0) -> None:
    """Turn a verified state into events; each device starts and settles at most once in a rollout. `heard` is when the device
    reported last: what is new in this report may have happened right after that.

    A withdrawn offer (`stopped`) is not looked at: a device that had just begun is told to stop by a newer document, and is offered
    the release anew when the rollout goes on.
    """
    mine = [row for status in LOOKED_AT for row in rows.find(tx, assignments, device=state.device, status=status)]
    for row in mine:
        report = state.slots.get(row["slot"])
        if report is not None:
            _observe(hub, tx, row, report, state.outcomes, heard)
    lost = [one for one in state.outcomes if one.verdict == "failed" and not one.rollout and one.release]
    for one in lost:
        if one.reason not in DAMAGED:
            _relapsed(hub, tx, state.device, one)
    if damaged := [one.order for one in lost if one.reason in DAMAGED]:
        _order_again(hub, tx, state.device, max(damaged))


def _observe(
    hub: Hub, tx: Connection, row: Row, report: SlotReport, outcomes: tuple[OutcomeReport, ...], heard: int
) -> None:
    job = load(tx, row["rollout"])
    release = job.rollout.plan.release
    if row["status"] == "recalled":
        _reverted(hub, tx, row, report)
        return
    mine = report.rollout == row["rollout"] and report.target == release
    working = report.phase in WORKING and report.target == release
    ended = _ended(row, outcomes, release) or (report if mine and report.verdict in OUTCOMES and not working else None)
    if not (working or ended or row["status"] == barriers.PROVEN):
        return
    events, changes = _events(hub, tx, row, report, ended, release)
    waits = job.rollout.plan.barrier and mine and report.phase == barriers.PROVEN and not ended
    changes |= _at_barrier(row, changes, waits, heard)
    if changes:
        rows.change(tx, assignments, {"rollout": row["rollout"], "device": row["device"]}, **changes)
    events += barriers.look(hub, tx, row["rollout"], job.rollout)
    if events:
        apply(hub, tx, row["rollout"], *events)
    if waits and job.rollout.waves[row["wave"]].decision == "commit":
        barriers.tell(hub, tx, row["device"])


def _at_barrier(row: Row, changes: dict[str, Any], waits: bool, heard: int) -> dict[str, Any]:
    """A device comes to the barrier, or has left it: committed, failed, or to begin again after a restart."""
    if waits:
        return {} if row["status"] == barriers.PROVEN else {"status": barriers.PROVEN, "proven_at": max(row["offered_at"], heard)}
    return {"status": "started"} if row["status"] == barriers.PROVEN and "status" not in changes else {}


def _ended(row: Row, outcomes: tuple[OutcomeReport, ...], release: str) -> OutcomeReport | None:
    """The newest outcome of this order in the outbox: a later order may have replaced it in the slot's own report."""
    order = row["slot"], row["rollout"], release
    told = [one for one in outcomes if (one.slot, one.rollout, one.release) == order and one.verdict in OUTCOMES]
    return max(told, key=lambda one: one.order, default=None)


def _events(
    hub: Hub, tx: Connection, row: Row, report: SlotReport, ended: OutcomeReport | SlotReport | None, release: str
) -> tuple[list[Event], dict[str, Any]]:
    now, events, changes = hub.now(), cast(list[Event], []), cast(dict[str, Any], {})
    if row["started_at"] is None:
        device = rows.get(tx, devices, id=row["device"])
        changes |= {"status": "started", "started_at": now, "paused_base": device["paused_s"] if device else 0}
        events.append(DeviceStarted(now, row["wave"]))
    if row["activated_at"] is None and (report.phase == "trial" or report.release == release):
        changes["activated_at"] = now
    if ended:
        changes |= {
            "status": "settled", "verdict": ended.verdict, "reason": ended.reason, "detail": ended.detail, "settled_at": now,
        }  # fmt: skip
        events.append(Outcome(now, row["wave"], cast(Verdict, ended.verdict), ended.reason))
    return events, changes


def _relapsed(hub: Hub, tx: Connection, device: str, told: OutcomeReport) -> None:
    """What a device had committed could not go on running there: where the rollout is not over yet, that counts as its outcome."""
    for row in rows.find(tx, assignments, device=device, status="settled", slot=told.slot):
        job = load(tx, row["rollout"]) if row["verdict"] in KEPT else None
        if job is None or job.rollout.plan.release != told.release or job.rollout.status not in UNDER_WAY:
            continue
        changes = {"verdict": "failed", "reason": told.reason, "detail": told.detail, "settled_at": hub.now()}
        rows.change(tx, assignments, {"rollout": row["rollout"], "device": device}, **changes)
        apply(hub, tx, row["rollout"], Relapsed(hub.now(), row["wave"], cast(Verdict, row["verdict"]), told.reason))


def _order_again(hub: Hub, tx: Connection, device: str, order: int) -> None:
    """A disk has eaten what a device ran since its newest order: the same under a newer number has the bytes fetched anew."""
    row = rows.get(tx, devices, id=device)
    if row is not None and row["counter"] == order:
        push(hub, tx, device)


def _reverted(hub: Hub, tx: Connection, row: Row, report: SlotReport) -> None:
    wanted = row["before"]["release"] if row["before"] and row["before"]["action"] == "run" else ""
    if report.phase in RESTING and report.release == wanted:
        rows.change(tx, assignments, {"rollout": row["rollout"], "device": row["device"]}, status="reverted")
        apply(hub, tx, row["rollout"], Reverted(hub.now()))
