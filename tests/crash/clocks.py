"""Wrong clocks: in each phase of an order the wall clock jumps, and perhaps the power goes; the order must end as if nothing were.

Locked out is a device that no longer takes good orders, frozen is one that goes on with an order that has run out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgeops.wire.conditions import Conditions
from edgeops.wire.desired import Desired
from edgeops.wire.envelope import seal
from edgeops.wire.messages import Bundle
from edgeops_agent.core.slot import Slot
from edgeops_agent.shell.inbox import Message

from .cache import SimDisk
from .desk import BAD, FLEET, KEYS, NAME, NOW, Desk, Violation, down
from .images import FRESH, ROOT
from .story import Device, furnish

YEAR = 365 * 86_400
WALLS = {
    "1970": lambda at: at, "2038": lambda at: float(2**31 - 1), "ten years on": lambda at: NOW + at + 10 * YEAR,
    "ten years back": lambda at: NOW + at - 10 * YEAR, "an hour back": lambda at: NOW + at - 3600, "backwards": lambda at: NOW - at,
    "there and back": lambda at: NOW + at + (10 * YEAR if int(at) % 2 else -10 * YEAR),
}  # fmt: skip
"""What the wall clock shows at second `at` of the clock that only goes on."""
PHASES = ("idle", "waiting", "fetch", "verify", "install", "ready", "trial", "proven", "rollback")
THEN = ("goes on", "loses power", "loses power and finds nobody for an hour")


class GatedDesk(Desk):
    """Its orders wait at every gate."""

    conditions = Conditions(("fetch_now",), ("switch_now",), ("commit_now",))


GATE = {"waiting": "fetch_now", "ready": "switch_now", "proven": "commit_now"}


@dataclass(frozen=True, slots=True)
class Jump:
    """The wall clock becomes `wall` when the order is in `phase`."""

    phase: str
    wall: str
    then: str

    def __str__(self) -> str:
        return f"{self.wall} in {self.phase}, {self.then}"


def jumps() -> Iterator[Jump]:
    """Every one."""
    return (Jump(phase, wall, then) for phase in PHASES for wall in WALLS for then in THEN)


def suffer(jump: Jump) -> None:
    """Play it; raises Violation."""
    disk, desk = SimDisk(), GatedDesk()
    furnish(disk, ROOT)
    device = Device(disk, ROOT, desk)
    device.settle()
    _update(device, 1)
    version = BAD if jump.phase == "rollback" else 2
    device.facts.clear()
    if jump.phase != "idle":
        device.link.order(version)
        _reach(device, jump.phase)
    device.wall = lambda one: WALLS[jump.wall](one.at)
    device = _go_on(device, jump)
    _open(device, *GATE.values())
    device.settle()
    if jump.phase != "idle":
        _expect(device, version)
    _frozen(device)
    device.facts.clear()
    _update(device, FRESH)
    device.close()


def _slot(device: Device) -> Slot:
    return device.agent.record.slots.get("main") or Slot()


def _open(device: Device, *facts: str) -> None:
    device.facts |= dict.fromkeys(facts, True)


def _reach(device: Device, phase: str) -> None:
    """Until the order is in this phase; gates on the way are opened."""
    for gate, fact in GATE.items():
        if phase == gate or (phase in PHASES[PHASES.index("fetch") :] and PHASES.index(phase) < PHASES.index(gate)):
            break
        _open(device, fact)
    start = device.at
    device.go(lambda: _slot(device).phase == phase or device.at > start + 100)
    if _slot(device).phase != phase:
        raise Violation(f"never came to {phase}: {_slot(device)}")


def _go_on(device: Device, jump: Jump) -> Device:
    if jump.then == "goes on":
        return device
    disk = device.files
    assert isinstance(disk, SimDisk)
    alone = jump.then != "loses power"
    again = Device(SimDisk.of(disk.image("kept")), ROOT, device.desk, offline=alone, at=device.at + 60, wall=device.wall)
    again.facts |= device.facts
    if alone:
        again.last(3600)
        may_run = 2 if _slot(again).phase == "proven" else 1  # a trial survives the restart, and needs nobody
        if again.running != may_run:
            raise Violation(f"{again.running} runs without anybody to talk to, not {may_run}")
        _frozen(again)
        again.offline = False
        again.link.join()
    return again


def _update(device: Device, version: int) -> None:
    device.link.order(version)
    _open(device, *GATE.values())
    device.settle()
    _expect(device, version)


def _expect(device: Device, version: int) -> None:
    runs, verdict = (1, "rolled-back") if version == BAD else (version, "committed")
    ended = device.desk.stored.get(len(device.desk.orders), "not at all")
    if (device.running, ended) != (runs, verdict):
        raise Violation(f"order of {version} ended {ended}, {device.running} runs: {_slot(device).last}")


def _frozen(device: Device) -> None:
    """An order that has run out comes once more, though by the wall clock it may be good still."""
    counter, record = len(device.desk.orders) + 1000, device.agent.record
    stale: Desired = replace(Desired(FLEET, NAME, 1, 0, counter, NOW - 900, NOW - 1, {}))
    sealed = seal("desired", stale.payload(), [KEYS["online"]])
    device.agent.inbox.offer(Message(down("desired"), Bundle((("desired", sealed),)).encode()))
    device.last(3)
    after, reason = device.agent.record, "refused_desired.expired"
    if after.trust.counter >= counter or after.counters.get(reason, 0) <= record.counters.get(reason, 0):
        raise Violation(f"an order that has run out was taken: {dict(after.counters)}")
