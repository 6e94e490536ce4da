"""What time brings: ticks of the rollout engine, silence, renewal of desired documents, old telemetry. All of it from the store."""

from collections import Counter
from typing import Any

from sqlalchemy import Connection

from edgeops.rollout.conditions import allowed_s
from edgeops.rollout.silence import Seen, judge_silence
from edgeops.rollout.state import Event, Outcome, Reverted, Rollout, Silence, Tick
from edgeops.store import rows
from edgeops.store.rows import Row
from edgeops.store.tables import assignments, devices, rollouts
from edgeops.wire.desired import SlotWish
from edgeops.wire.errors import Unfit

from . import approvals, barriers
from .conduct import AT_WORK, Job, apply, check_understood, load, refuse
from .desire import DAY_S, push, wish_of
from .devices import presence
from .documents import settle
from .hub import Hub
from .telemetry import forget

TICKING = ("running", "paused", "halted", "reverting")


def tick(hub: Hub) -> None:
    """One look at every rollout that time can still change."""
    approvals.expire(hub)
    with hub.store.read() as tx:
        names = [row["id"] for status in TICKING for row in rows.find(tx, rollouts, status=status)]
    for name in names:
        with hub.store.write() as tx:
            job = load(tx, name)
            rollout = job.rollout
            found = [*_events(hub, tx, name, rollout), *_unable(hub, tx, job), *_superseded(hub, tx, name)]
            found += barriers.look(hub, tx, name, rollout)
            apply(hub, tx, name, *found, Tick(hub.now(), _waiting(hub, tx, name, rollout)))


def _waiting(hub: Hub, tx: Connection, name: str, rollout: Rollout) -> int:
    """Reachable devices of open waves that have yet to start."""
    now, count = hub.now(), 0
    for row in rows.find(tx, assignments, rollout=name, status="offered"):
        device = rows.get(tx, devices, id=row["device"])
        count += device is not None and row["wave"] <= rollout.current and presence(device, now) == "online"
    return count


def _events(hub: Hub, tx: Connection, name: str, rollout: Rollout) -> list[Event]:
    """Silence of started devices: shown while unknown, an outcome once the bound is passed."""
    now, events, unknown = hub.now(), list[Event](), Counter[int]()
    waits_s = allowed_s(rollout.plan.conditions)
    for row in (row for status in AT_WORK for row in rows.find(tx, assignments, rollout=name, status=status)):
        device = rows.get(tx, devices, id=row["device"])
        quiet = judge_silence(rollout.plan.policy, _seen(row, device, waits_s), now) if device else "silent"
        if quiet == "unknown":
            unknown[row["wave"]] += 1
        elif quiet != "fine":
            verdict, reason = ("silent", "silent") if quiet == "silent" else ("failed", "device-deadline")
            changes: dict[str, Any] = {"status": "settled", "verdict": verdict, "reason": reason, "settled_at": now}
            rows.change(tx, assignments, {"rollout": name, "device": row["device"]}, **changes)
            events.append(Outcome(now, row["wave"], "silent" if verdict == "silent" else "failed", reason))
    for index, wave in enumerate(rollout.waves):
        if wave.unknown != unknown[index]:
            events.append(Silence(now, index, unknown[index]))
    return events


def _unable(hub: Hub, tx: Connection, job: Job) -> list[Event]:
    """Devices that turn out to be unfit for what they were offered: by their first birth, or by leaving the fleet and a barrier."""
    events: list[Event] = []
    barrier = job.rollout.plan.barrier and job.rollout.status != "reverting"
    for status in ("offered", *(("planned", "stopped", *AT_WORK) if barrier else ())):
        for row in rows.find(tx, assignments, rollout=job.id, status=status):
            device = rows.get(tx, devices, id=row["device"])
            try:
                if barrier and row["wave"] <= job.rollout.current and (device is None or device["status"] != "enrolled"):
                    raise Unfit("not-enrolled", f"{row['device']} has left the fleet, and its barrier with it")
                if status == "offered" and device is not None:
                    check_understood(job.rollout, device)
            except Unfit as error:
                events += refuse(hub, tx, job, row, error)
    return events


def _superseded(hub: Hub, tx: Connection, name: str) -> list[Event]:
    """Devices a recall need not wait for any more: something newer has taken the slot, or the device was revoked."""
    events: list[Event] = []
    for row in rows.find(tx, assignments, rollout=name, status="recalled"):
        device = rows.get(tx, devices, id=row["device"])
        asked = row["before"] or SlotWish("none", rollout=name).payload()
        if device is None or device["status"] != "enrolled" or wish_of(tx, row["device"], row["slot"]) != asked:
            rows.change(tx, assignments, {"rollout": name, "device": row["device"]}, status="superseded")
            events.append(Reverted(hub.now()))
    return events


def _seen(row: Row, device: Row, waits_s: int) -> Seen:
    goodbye = device["presence_at"] if device["presence"] == "offline" else None
    last = device["last_seen"] or row["started_at"]
    return Seen(row["started_at"], row["activated_at"], last, goodbye, device["paused_s"] - row["paused_base"], waits_s)


def renew(hub: Hub) -> None:
    """Re-sign desired documents of an older root or past half their life, drop telemetry nobody may look at any more."""
    now = hub.now()
    settle(hub)
    half = hub.settings.desired_days * DAY_S // 2
    with hub.store.read() as tx:
        old = [
            row["id"] for row in rows.find(tx, devices, status="enrolled")
            if row["desired"] is not None and row["desired_expires"] - now < half
        ]  # fmt: skip
    for device in old:
        with hub.store.write() as tx:
            push(hub, tx, device)
    with hub.store.write() as tx:
        forget(tx, now - hub.settings.keep_windows_days * DAY_S, hub.settings.keep_windows)
        hub.timekeeper.tell(tx, hub.root, now)  # so that a quiet week is not taken for a jump


def forget_presence(hub: Hub) -> None:
    """Nobody is known to be there after a start: their links ended with the broker we started before."""
    with hub.store.write() as tx:
        rows.change(tx, devices, {"presence": "online"}, presence="gone", presence_at=hub.now())
