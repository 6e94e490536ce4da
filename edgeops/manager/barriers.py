"""Barriers as the store knows them: who waits there, and the word that lets them commit.

The engine decides, and its decision is stored before anybody is told. From then on whoever says that it waits is told so, each
time: it may have restarted, or the word may have got lost.
"""

from sqlalchemy import Connection, select

from edgeops.rollout.barrier import is_undecided, latest_decision
from edgeops.rollout.state import Event, Proven, Rollout
from edgeops.store import rows
from edgeops.store.tables import assignments, devices, reports

from .desire import command, counting, counts_with_us
from .devices import presence
from .hub import Hub

PROVEN = "proven"


def look(hub: Hub, tx: Connection, rollout: str, r: Rollout) -> list[Event]:
    """Who waits at the barrier of the open wave and is there to hear the decision, if that has changed."""
    if not is_undecided(r):
        return []
    now, commit_s = hub.now(), r.plan.conditions.commit_s
    columns = assignments.c.proven_at, devices.c.status, devices.c.last_seen, devices.c.presence, devices.c.presence_at
    here = (assignments.c.rollout == rollout) & (assignments.c.wave == r.current) & (assignments.c.status == PROVEN)
    query = select(*columns).join(devices, devices.c.id == assignments.c.device).where(here)
    found = [dict(row) for row in tx.execute(query).mappings()]
    there = sum(row["status"] == "enrolled" and presence(row, now) == "online" for row in found)
    by = min((latest_decision(commit_s, row["proven_at"]) for row in found), default=None)
    return [] if (there, by) == (r.wave.proven, r.wave.commit_by) else [Proven(now, r.current, there, by)]


def let_commit(hub: Hub, tx: Connection, rollout: str, wave: int) -> None:
    """Tell all that wait at the barrier of a wave that they may commit."""
    for row in rows.find(tx, assignments, rollout=rollout, wave=wave, status=PROVEN):
        tell(hub, tx, row["device"])


def tell(hub: Hub, tx: Connection, device: str) -> None:
    """Tell a device that it may commit what it has proven under the newest order it says it has: never under one yet to come."""
    row, report = rows.get(tx, devices, id=device), rows.get(tx, reports, device=device)
    if row is not None and row["status"] == "enrolled" and report is not None and counts_with_us(hub, row):
        command(hub, tx, device, "commit", min(report["counter"], counting(hub, tx, row)["counter"]))
