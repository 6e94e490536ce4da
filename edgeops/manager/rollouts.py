"""Rollouts as the API speaks of them: creating, operating, showing."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, func, select

from edgeops.fleet.selector import parse_selector
from edgeops.rollout import codec
from edgeops.rollout.conditions import conditions_from, settings_of
from edgeops.rollout.plan import Plan, parse_waves
from edgeops.rollout.policy import policy_from
from edgeops.rollout.state import Aborted, Advanced, OperatorEvent, Paused, Resumed, Rollout, Started
from edgeops.store import audit, rows
from edgeops.store.rows import Row
from edgeops.store.tables import assignments, devices, rollouts, wishes
from edgeops.store.tables import streams as stream_table
from edgeops.wire.desired import Trial
from edgeops.wire.errors import Misuse
from edgeops.wire.fields import ID, Fields

from . import approvals, phases, streams
from . import releases as release_noun
from .conduct import apply, check_conflict, load
from .devices import presence
from .hub import Hub
from .reconcile import TICKING

VERBS = ("pause", "resume", "advance", "abort")


def create(hub: Hub, who: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Start a rollout, or propose it where others must agree.

    Raises Misuse: unknown-release, selector-*, waves-invalid, policy-*, conditions-*, trial-unknown, rollout-conflict.
    """
    now, slot = hub.now(), str(body.get("slot") or "main")
    if not ID.fullmatch(slot):
        raise Misuse("bad-slot", f"slot {slot!r} must match {ID.pattern}")
    policy, waves = policy_from(body.get("policy") or {}), parse_waves(str(body["waves"]))
    trial, conditions = _trial(body.get("trial") or {}), conditions_from(body.get("conditions") or {})
    with hub.store.write() as tx:
        release = release_noun.must_find(tx, str(body["model"]), int(body["version"]))
        release_noun.must_be_believed(hub, release)
        _check_variant(release, body.get("variant"))
        targets = _targets(hub, tx, str(body["to"]))
        rollout_id = _new_id(tx, now)
        targets.sort(key=lambda row: (presence(row, now) != "online", _shuffle(rollout_id, row["id"])))
        check_conflict(tx, [row["id"] for row in targets], slot)
        plan = Plan(
            rollout_id, release["digest"], release["model"], release["version"], slot, _previous(tx, targets, slot), waves, policy,
            conditions,
        )  # fmt: skip
        extra = {
            "to": body["to"], "waves": ",".join(map(str, waves)), "variant": body.get("variant"), "trial": trial, "who": who,
            "budget_bytes": int(body.get("budget_bytes") or 0), "approvals": approvals.terms(hub, body.get("approvals"), now),
        }  # fmt: skip
        state = Rollout(plan)
        rows.put(tx, rollouts, id=rollout_id, created=now, status=state.status, plan=extra, state=codec.encode(state))
        _assign(tx, plan, [row["id"] for row in targets])
        if extra["approvals"]["needed"] > 1:
            approvals.propose(hub, tx, rollout_id)
        else:
            audit.write(tx, now, who, "rollout-start", rollout_id, f"{plan.model}:{plan.version} to {body['to']}")
            apply(hub, tx, rollout_id, Started(now, len(targets), who))
        return view(hub, tx, rows.get(tx, rollouts, id=rollout_id) or {}, detail=True)


def operate(hub: Hub, who: str, rollout: str, verb: str, mode: str = "keep") -> dict[str, Any]:
    """pause, resume, advance or abort; raises Misuse (unknown-rollout, illegal-transition, rollout-conflict, abort-mode)."""
    now = hub.now()
    if verb == "abort" and mode not in ("keep", "revert"):
        raise Misuse("abort-mode", f"abort mode {mode!r}: choose keep or revert")
    events: dict[str, OperatorEvent] = {
        "pause": Paused(now, who), "resume": Resumed(now, who), "advance": Advanced(now, who),
        "abort": Aborted(now, "revert" if mode == "revert" else "keep", who),
    }  # fmt: skip
    with hub.store.write() as tx:
        job = load(tx, rollout)
        approvals.check_verb(tx, rollout, verb)
        if verb == "resume":
            names = [row["device"] for row in rows.find(tx, assignments, rollout=rollout)]
            check_conflict(tx, names, job.rollout.plan.slot, but=rollout)
        if verb in ("resume", "advance"):
            release_noun.must_be_believed(hub, release_noun.must_find(tx, job.rollout.plan.model, job.rollout.plan.version))
        apply(hub, tx, rollout, events[verb])
        return view(hub, tx, rows.get(tx, rollouts, id=rollout) or {}, detail=True)


def approve(hub: Hub, who: str, rollout: str, digest: str) -> dict[str, Any]:
    """Agree to a proposed rollout; see `approvals.approve`."""
    with hub.store.write() as tx:
        approvals.approve(hub, tx, who, rollout, digest)
        return view(hub, tx, rows.get(tx, rollouts, id=rollout) or {}, detail=True)


def reject(hub: Hub, who: str, rollout: str, why: str = "") -> dict[str, Any]:
    """Refuse a proposed rollout; see `approvals.reject`."""
    with hub.store.write() as tx:
        approvals.reject(hub, tx, who, rollout, why)
        return view(hub, tx, rows.get(tx, rollouts, id=rollout) or {}, detail=True)


def listed(hub: Hub) -> list[dict[str, Any]]:
    """All rollouts, newest first, without their devices."""
    with hub.store.read() as tx:
        return [view(hub, tx, row) for row in reversed(rows.find(tx, rollouts, order="created"))]


def show(hub: Hub, rollout: str) -> dict[str, Any]:
    """One rollout with a row for each device."""
    with hub.store.read() as tx:
        load(tx, rollout)
        return view(hub, tx, rows.get(tx, rollouts, id=rollout) or {}, detail=True)


def view(hub: Hub, tx: Connection, row: Row, detail: bool = False) -> dict[str, Any]:
    """What the API tells of a rollout."""
    r = codec.decode(row["state"])
    at = phases.of(tx, row["id"], r.plan) if row["status"] in TICKING else {}
    steps = row["plan"]["waves"].split(",")
    waves = [
        {"label": label, **asdict(wave), "failures": wave.failures, "in_flight": wave.in_flight}
        for label, wave in zip(steps, r.waves, strict=False)
    ]
    shown = {
        "id": row["id"], "created": row["created"], "status": row["status"], "model": r.plan.model, "version": r.plan.version,
        "release": r.plan.release, "slot": r.plan.slot, "to": row["plan"]["to"], "variant": row["plan"]["variant"],
        "previous": r.plan.previous, "targets": r.targets, "wave": r.current + 1, "waves": waves,
        "why": row["plan"].get("ended") or r.why,
        "reasons": [asdict(reason) for reason in r.reasons], "waiting": r.waiting, "reverted": r.reverted,
        "counts": _counts(r), "phases": dict(Counter(one.phase for one in at.values())),
        "conditions": settings_of(r.plan.conditions),
        "policy": asdict(r.plan.policy), "trial": row["plan"]["trial"], "who": row["plan"]["who"],
    }  # fmt: skip
    return shown | (_detail(tx, row["id"], r, at) | {"approval": approvals.view(hub, tx, row)} if detail else {})


def _counts(r: Rollout) -> dict[str, int]:
    names = ("started", "committed", "unproven", "rolled_back", "failed", "unfit", "silent", "unknown")
    return {name: sum(getattr(wave, name) for wave in r.waves) for name in names}


def _detail(tx: Connection, rollout: str, r: Rollout, at: Mapping[str, phases.At]) -> dict[str, Any]:
    names = ("device", "wave", "status", "verdict", "reason", "detail", "offered_at", "started_at", "activated_at", "settled_at")
    found = rows.find(tx, assignments, order="position", rollout=rollout)
    sent = rows.find(tx, stream_table, release=r.plan.release)
    nowhere = phases.At("", "")
    return {
        "devices": [
            {name: row[name] for name in names} | {"wave": row["wave"] + 1} | asdict(at.get(row["device"], nowhere))
            for row in found
        ],
        "delivery": [streams.counts(tx, row["digest"]) for row in sent],
    }  # fmt: skip


def _targets(hub: Hub, tx: Connection, text: str) -> list[Row]:
    selector = parse_selector(text)
    enrolled = rows.find(tx, devices, status="enrolled")
    found = [row for row in enrolled if selector.matches({**row["labels"], "id": row["id"]})]
    if not found:
        message = f"selector {text!r} matches none of the {len(enrolled)} enrolled devices; see `edgeops device list`"
        raise Misuse("selector-empty", message)
    return found


def _assign(tx: Connection, plan: Plan, names: list[str]) -> None:
    reaches = plan.reaches(len(names))
    for position, name in enumerate(names):
        wave = next(index for index, reach in enumerate(reaches) if position < reach)
        rows.put(
            tx, assignments, rollout=plan.rollout_id, device=name, position=position, wave=wave, slot=plan.slot, status="planned",
            verdict="", reason="", detail="", paused_base=0,
        )  # fmt: skip


def _previous(tx: Connection, targets: list[Row], slot: str) -> str | None:
    """The release most targets are wished to run in the slot now."""
    names = {row["id"] for row in targets}
    wished = [row["wish"] for row in rows.find(tx, wishes, slot=slot) if row["device"] in names]
    running = Counter(wish["release"] for wish in wished if wish["action"] == "run")
    return running.most_common(1)[0][0] if running else None


def _check_variant(release: Row, variant: object) -> None:
    if variant and variant not in release_noun.read(release).variants:
        raise Misuse("unknown-variant", f"{release['model']}:{release['version']} has no variant {variant!r}")


def _trial(raw: Mapping[str, Any]) -> dict[str, int]:
    unknown = sorted(set(raw) - set(Trial.__slots__))
    if unknown:
        raise Misuse("trial-unknown", f"trial: there is no limit {unknown[0]!r}; known: {', '.join(Trial.__slots__)}")
    return Trial.parse(Fields(raw, "trial")).payload()


def _new_id(tx: Connection, now: int) -> str:
    count = tx.execute(select(func.count()).select_from(rollouts)).scalar() or 0
    return f"r-{datetime.fromtimestamp(now, UTC):%Y%m%d}-{count + 1}"


def _shuffle(rollout: str, device: str) -> bytes:
    return hashlib.sha256(f"{rollout}/{device}".encode()).digest()
