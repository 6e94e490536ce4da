"""Rollouts that one person alone may not start: proposed by one operator, started by the approval of others.

An approval names the digest of the plan: everything that decides what will happen on which devices. The digest is computed anew
from what is stored whenever it matters, so an approval of one plan is worth nothing for another. The engine knows nothing of
this: to it the rollout is pending until somebody may start it.
"""

from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection

from edgeops.rollout import codec
from edgeops.rollout.conditions import NONE, settings_of
from edgeops.rollout.state import Aborted, Started
from edgeops.store import audit, rows
from edgeops.store.rows import Row
from edgeops.store.tables import approvals, assignments, marks, rollouts, tokens
from edgeops.wire import canonical
from edgeops.wire.conditions import Conditions
from edgeops.wire.errors import Misuse
from edgeops.wire.keys import sha256

from . import releases as release_noun
from .conduct import apply, check_conflict, load
from .hub import Hub

PROPOSED = "proposed"
LIFE_S = 86_400
SETTING = "rollout-approvals"


def terms(hub: Hub, asked: int | None, now: int) -> dict[str, int]:
    """How many operators must agree, the starter among them, and until when; nobody can ask for fewer than the setting says."""
    return {"needed": max(hub.settings.rollout_approvals, asked or 1), "expires": now + LIFE_S}


def needed(row: Row) -> int:
    """How many operators a stored rollout needs."""
    return int(row["plan"].get("approvals", {}).get("needed", 1))


def plan_of(tx: Connection, row: Row) -> dict[str, Any]:
    """All that decides what a rollout does, from what is stored, as canonical JSON can hold it."""
    plan, told = codec.decode(row["state"]).plan, row["plan"]
    policy = asdict(plan.policy) | {"success_ppm": plan.policy.success_ppm}
    del policy["success_fraction"]  # a float; its parts per million stand for it
    names = [one["device"] for one in rows.find(tx, assignments, order="position", rollout=row["id"])]
    return {
        "rollout": row["id"], "release": plan.release, "model": plan.model, "version": plan.version, "variant": told["variant"],
        "slot": plan.slot, "previous": plan.previous, "selector": told["to"],
        "devices": {"count": len(names), "sha256": sha256(canonical.encode(names))}, "waves": [str(wave) for wave in plan.waves],
        "policy": policy, "trial": told["trial"], "budget_bytes": told["budget_bytes"], "proposed_by": told["who"],
        **told["approvals"], **_conditions(plan.conditions),
    }  # fmt: skip


def _conditions(conditions: Conditions) -> dict[str, Any]:
    """What devices wait for, if for anything: a plan that was approved before there were conditions keeps its digest."""
    return {"conditions": settings_of(conditions)} if conditions != NONE else {}


def digest_of(plan: dict[str, Any]) -> str:
    """What an approval names."""
    return sha256(canonical.encode(plan))


def view(hub: Hub, tx: Connection, row: Row) -> dict[str, Any] | None:
    """The plan, its digest and who agreed to it; None where one person was enough."""
    if needed(row) < 2:
        return None
    plan = plan_of(tx, row)
    found = _standing(hub, tx, row["id"]) if row["status"] == PROPOSED else rows.find(tx, approvals, order="at", rollout=row["id"])
    given = [{name: one[name] for name in ("who", "at", "digest")} for one in found]
    return {"needed": needed(row), "expires": plan["expires"], "digest": digest_of(plan), "plan": plan, "given": given}


def propose(hub: Hub, tx: Connection, rollout: str) -> None:
    """Hold a new rollout for approval; its starter agrees to it by proposing it."""
    row = _must_get(tx, rollout)
    plan = plan_of(tx, row)
    who, digest, now = plan["proposed_by"], digest_of(plan), hub.now()
    rows.change(tx, rollouts, {"id": rollout}, status=PROPOSED)
    _agree(tx, rollout, who, digest, now)
    said = f"{plan['model']}:{plan['version']} to {plan['selector']}, needs {plan['needed']} operators, plan {digest}"
    audit.write(tx, now, who, "rollout-propose", rollout, said)


def approve(hub: Hub, tx: Connection, who: str, rollout: str, digest: str) -> None:
    """Agree to a plan; the last approval that is needed starts it.

    Raises Misuse: unknown-rollout, not-proposed, proposal-expired, plan-mismatch, plan-changed, approved-already, rollout-conflict.
    """
    row, now = _proposed(tx, rollout), hub.now()
    plan = plan_of(tx, row)
    found = digest_of(plan)
    if plan["expires"] <= now:
        raise Misuse("proposal-expired", f"rollout {rollout} was proposed more than {LIFE_S // 3600} hours ago; propose it again")
    if digest != found:
        text = f"you approve plan {digest[:12]}, but rollout {rollout} has plan {found[:12]}; look at it again before you approve"
        raise Misuse("plan-mismatch", text)
    given = _standing(hub, tx, rollout)
    if any(one["digest"] != found for one in given):
        raise Misuse("plan-changed", f"the plan of rollout {rollout} is not what was proposed and approved so far; reject it")
    if any(one["who"] == who for one in given):
        raise Misuse("approved-already", f"{who} has agreed to rollout {rollout} already; it needs another operator")
    _agree(tx, rollout, who, digest, now)
    audit.write(tx, now, who, "rollout-approve", rollout, f"plan {digest}")
    if len(given) + 1 >= max(plan["needed"], hub.settings.rollout_approvals):
        _start(hub, tx, row, plan)


def _agree(tx: Connection, rollout: str, who: str, digest: str, now: int) -> None:
    """Note an approval, and by which API token it was given; those who log in at an issuer have none."""
    token = rows.get(tx, tokens, name=who)
    rows.put(tx, approvals, rollout=rollout, who=who, digest=digest, at=now, token=token["public"] if token else None)


def _standing(hub: Hub, tx: Connection, rollout: str) -> list[Row]:
    """The approvals that count now: a token that was withdrawn or has ended since may have been stolen when it agreed."""
    good = {one["public"] for one in rows.find(tx, tokens) if one["expires"] is None or one["expires"] > hub.now()}
    return [one for one in rows.find(tx, approvals, order="at", rollout=rollout) if one["token"] is None or one["token"] in good]


def _start(hub: Hub, tx: Connection, row: Row, plan: dict[str, Any]) -> None:
    release_noun.must_be_believed(hub, release_noun.must_find(tx, plan["model"], plan["version"]))
    names = [one["device"] for one in rows.find(tx, assignments, rollout=row["id"])]
    check_conflict(tx, names, plan["slot"])
    apply(hub, tx, row["id"], Started(hub.now(), len(names), plan["proposed_by"]))


def reject(hub: Hub, tx: Connection, who: str, rollout: str, why: str = "") -> None:
    """Refuse a proposal for good; its proposer may, too. Raises Misuse("unknown-rollout" | "not-proposed")."""
    _end(hub, tx, _proposed(tx, rollout), who, "rollout-reject", f"rejected by {who}" + (f": {why}" if why else ""))


def expire(hub: Hub) -> None:
    """End proposals nobody approved in time."""
    now = hub.now()
    with hub.store.read() as tx:
        late = [row["id"] for row in rows.find(tx, rollouts, status=PROPOSED) if row["plan"]["approvals"]["expires"] <= now]
    for rollout in late:
        with hub.store.write() as tx:
            row = _must_get(tx, rollout)
            if row["status"] == PROPOSED:
                _end(hub, tx, row, "engine", "rollout-expire", f"not approved within {LIFE_S // 3600} hours")


def _end(hub: Hub, tx: Connection, row: Row, who: str, action: str, why: str) -> None:
    rows.change(tx, rollouts, {"id": row["id"]}, plan={**row["plan"], "ended": why})
    audit.write(tx, hub.now(), who, action, row["id"], why)
    apply(hub, tx, row["id"], Aborted(hub.now(), "keep", who))


def check_verb(tx: Connection, rollout: str, verb: str) -> None:
    """Raise Misuse("beyond-the-plan") for what would set aside the gates that several operators agreed to."""
    row = _must_get(tx, rollout)
    if needed(row) > 1 and (verb == "advance" or (verb == "resume" and row["status"] == "halted")):
        text = f"{verb} would pass over the gates of a plan that {needed(row)} operators approved; abort it and propose another"
        raise Misuse("beyond-the-plan", f"rollout {rollout}: {text}")


def tell_setting(hub: Hub) -> None:
    """Write into the audit log that `rollout_approvals` is another than at the last start: lowering it is not to go unseen."""
    value = hub.settings.rollout_approvals
    with hub.store.write() as tx:
        mark = rows.get(tx, marks, name=SETTING)
        before = int(mark["value"]) if mark else 1
        if before != value:
            rows.put(tx, marks, name=SETTING, value=value)
            audit.write(tx, hub.now(), "settings", "setting-change", "rollout_approvals", f"{before} -> {value}")


def _must_get(tx: Connection, rollout: str) -> Row:
    load(tx, rollout)
    return rows.get(tx, rollouts, id=rollout) or {}


def _proposed(tx: Connection, rollout: str) -> Row:
    row = _must_get(tx, rollout)
    if row["status"] != PROPOSED:
        raise Misuse("not-proposed", f"rollout {rollout} is {row['status']}: only a proposed one can be approved or rejected")
    return row
