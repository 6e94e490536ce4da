"""Carrying out what the rollout engine says, in the transaction that stores its new state.

An assignment goes `planned -> offered -> started -> settled`, by way of `proven` where the device waits at a barrier; `stopped` is
an offer withdrawn before the device began; a recall makes it `recalled`, then `reverted`, or `superseded` when something newer has
taken the slot. The engine counts, these rows name the devices.
"""

from collections import deque
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from edgeops.rollout import codec, engine
from edgeops.rollout.conditions import NONE, UNDERSTOOD
from edgeops.rollout.state import Audit, CommitWave, DeviceStarted, Event, Notify, OpenWave, Outcome, Recall, Rollout, Stop
from edgeops.store import audit, rows
from edgeops.store.rows import Row
from edgeops.store.tables import assignments, devices, releases, rollouts
from edgeops.wire.desired import SlotWish, Trial
from edgeops.wire.device_class import ANY
from edgeops.wire.errors import Misuse, Unfit
from edgeops.wire.fields import Fields
from edgeops.wire.release import Release, Variant

from . import barriers
from . import releases as release_noun
from .desire import push, set_wish, wish_of
from .devices import device_class
from .hub import Hub
from .streams import ensure

# A recall orders each device once and then only waits, so it is in nobody's way.
ACTIVE = ("pending", "running", "paused")
AT_WORK = ("started", barriers.PROVEN)
GONE_BAD = ("rolled-back", "failed", "unfit", "silent")


@dataclass(frozen=True, slots=True)
class Job:
    """One rollout while it is being worked on."""

    id: str
    plan: dict[str, Any]
    rollout: Rollout


def load(tx: Connection, rollout: str) -> Job:
    """A rollout by id; raises Misuse("unknown-rollout")."""
    row = rows.get(tx, rollouts, id=rollout)
    if row is None:
        raise Misuse("unknown-rollout", f"there is no rollout {rollout!r}; `edgeops rollout list` shows all")
    return Job(rollout, row["plan"], codec.decode(row["state"]))


def apply(hub: Hub, tx: Connection, rollout: str, *events: Event) -> Rollout:
    """Feed events to a rollout, store its new state and carry out its commands, which may give further events."""
    job = load(tx, rollout)
    waiting = deque(events)
    while waiting:
        before = job.rollout
        state, commands = engine.step(before, waiting.popleft())
        job = replace(job, rollout=state)
        # Time alone is not worth a write: a tick that changed nothing leaves the row as it is.
        if replace(state, now=before.now) != before or commands:
            rows.change(tx, rollouts, {"id": rollout}, state=codec.encode(state), status=state.status)
        for command in commands:
            waiting.extend(_carry_out(hub, tx, job, command))
    return job.rollout


def _carry_out(hub: Hub, tx: Connection, job: Job, command: object) -> list[Event]:
    match command:
        case OpenWave(_, up_to):
            return _open(hub, tx, job, up_to)
        case Recall(previous, last_wave, first_wave):
            _recall(hub, tx, job, previous, range(first_wave, last_wave + 1))
        case CommitWave(index):
            barriers.let_commit(hub, tx, job.id, index)
        case Stop():
            _stop(hub, tx, job)
        case Audit(text):
            audit.write(tx, hub.now(), "engine", "rollout", job.id, text)
        case Notify(kind, text):
            audit.write(tx, hub.now(), "engine", kind, job.id, text)
    return []


def _open(hub: Hub, tx: Connection, job: Job, up_to: int) -> list[Event]:
    release = release_row(tx, job.rollout.plan.release)
    events: list[Event] = []
    for row in rows.find(tx, assignments, order="position", rollout=job.id):
        if row["position"] < up_to and row["status"] in ("planned", "stopped"):
            events += _offer(hub, tx, job, row, release)
    return events


def _offer(hub: Hub, tx: Connection, job: Job, row: Row, release: Release) -> list[Event]:
    device = rows.get(tx, devices, id=row["device"])
    now, key = hub.now(), {"rollout": job.id, "device": row["device"]}
    if device is None or device["status"] != "enrolled":
        return []
    try:
        check_understood(job.rollout, device)
        name, variant = choose_variant(release, device, job.plan.get("variant"))
    except Unfit as error:
        return refuse(hub, tx, job, row, error)
    stream = ensure(hub, tx, job.rollout.plan.release, name, variant)
    trial, budget = Trial.parse(Fields(job.plan.get("trial", {}), "trial")), job.plan.get("budget_bytes", 0)
    conditions = job.rollout.plan.conditions_of(row["wave"])
    wish = SlotWish("run", job.rollout.plan.release, name, stream, job.id, trial, conditions, budget)
    before = wish_of(tx, row["device"], row["slot"])
    rows.change(tx, assignments, key, status="offered", before=before, offered_at=now)
    if set_wish(tx, row["device"], row["slot"], wish.payload()):
        push(hub, tx, row["device"])
    return []


def check_understood(rollout: Rollout, device: Row) -> None:
    """Raise Unfit("conditions") for a device whose agent says that it would not wait: it is never offered less. Whoever has not
    been born yet has said nothing; it refuses by itself what it does not understand.
    """
    able = device["capabilities"]
    understands = able.get("understands") if able else [UNDERSTOOD]
    if rollout.plan.conditions != NONE and not (isinstance(understands, list) and UNDERSTOOD in understands):
        agent = device["agent"] or "of an unknown version"
        text = f"the agent of {device['id']} ({agent}) cannot wait for conditions or at a barrier; update the agent"
        raise Unfit("conditions", text)


def refuse(hub: Hub, tx: Connection, job: Job, row: Row, error: Unfit) -> list[Event]:
    """Settle a device as unfit, whether it has started or not; what it was offered is taken away again."""
    now, begun = hub.now(), row["started_at"]
    rows.change(
        tx, assignments, {"rollout": job.id, "device": row["device"]}, status="settled", verdict="unfit", reason=error.reason,
        detail=error.message, started_at=begun or now, settled_at=now,
    )  # fmt: skip
    _wish_back(hub, tx, job, row, row["before"])
    started: list[Event] = [] if begun else [DeviceStarted(now, row["wave"])]
    return [*started, Outcome(now, row["wave"], "unfit", error.reason)]


def choose_variant(release: Release, device: Row, asked: str | None) -> tuple[str, Variant]:
    """The variant a device gets: the asked one if it fits, else the smallest made for its class, else the smallest for any.

    Raises Unfit("no-variant" | "device-class").
    """
    wanted = device_class(device) or ANY
    if asked:
        variant = release.variants[asked]
        if not variant.fits(wanted):
            raise Unfit("device-class", f"variant {asked} is for {', '.join(variant.classes)}; {device['id']} is {wanted}")
        return asked, variant
    fitting = [(wanted not in v.classes, v.size, name) for name, v in release.variants.items() if v.fits(wanted)]
    if not fitting:
        raise Unfit("no-variant", f"{release.model}:{release.version} has no variant for {device['id']}, which is {wanted}")
    name = min(fitting)[2]
    return name, release.variants[name]


def _stop(hub: Hub, tx: Connection, job: Job) -> None:
    """Withdraw every offer that has not begun."""
    for row in rows.find(tx, assignments, rollout=job.id, status="offered"):
        rows.change(tx, assignments, {"rollout": job.id, "device": row["device"]}, status="stopped")
        _wish_back(hub, tx, job, row, row["before"])


def _recall(hub: Hub, tx: Connection, job: Job, previous: str | None, waves: range) -> None:
    """Give devices of some waves back what they had; one that had nothing gets `previous`, or nothing. Going back waits for
    nothing, whatever the order that is repeated once waited for.
    """
    for row in rows.find(tx, assignments, rollout=job.id):
        if row["wave"] not in waves or row["status"] not in (*AT_WORK, "settled"):
            continue
        before = row["before"] or _previous_wish(hub, tx, row["device"], previous)
        before = before and {name: value for name, value in before.items() if name != "conditions"}
        if row["verdict"] not in GONE_BAD:
            rows.change(tx, assignments, {"rollout": job.id, "device": row["device"]}, status="recalled", before=before)
        _wish_back(hub, tx, job, row, before)


def _previous_wish(hub: Hub, tx: Connection, device: str, previous: str | None) -> dict[str, Any] | None:
    row = rows.get(tx, devices, id=device)
    if previous is None or row is None:
        return None
    try:
        name, variant = choose_variant(release_row(tx, previous), row, None)
    except Unfit:
        return None
    return SlotWish("run", previous, name, ensure(hub, tx, previous, name, variant)).payload()


def _wish_back(hub: Hub, tx: Connection, job: Job, row: Row, before: dict[str, Any] | None) -> None:
    """Return a slot to `before`, unless somebody has wished something else for it since."""
    now_wished = wish_of(tx, row["device"], row["slot"])
    if now_wished is None or now_wished.get("rollout") != job.id:
        return
    wish = before or SlotWish("none", rollout=job.id).payload()
    if set_wish(tx, row["device"], row["slot"], wish):
        push(hub, tx, row["device"])


def check_conflict(tx: Connection, names: list[str], slot: str, but: str = "") -> None:
    """Raise Misuse("rollout-conflict") where another rollout is at work on this slot of one of these devices."""
    mine = set(names)
    for status in ACTIVE:
        for other in rows.find(tx, rollouts, status=status):
            taken = rows.find(tx, assignments, rollout=other["id"], slot=slot) if other["id"] != but else []
            shared = sorted(mine & {row["device"] for row in taken})
            if shared:
                text = f"rollout {other['id']} is {status} on slot {slot} of {len(shared)} of these devices, such as {shared[0]}"
                raise Misuse("rollout-conflict", f"{text}; wait for it or abort it first")


def release_row(tx: Connection, digest: str) -> Release:
    """A stored release by digest; raises Misuse("unknown-release")."""
    row = rows.get(tx, releases, digest=digest)
    if row is None:
        raise Misuse("unknown-release", f"there is no release {digest[:12]}")
    return release_noun.read(row)
