"""A disk that refuses: every call of a start and an update fails once, or from there on until the disk is mended.

The agent lives; what runs goes on running; the order at hand ends well or with a reason, and the next one works.
"""

import errno
from collections.abc import Iterator
from dataclasses import dataclass

from edgeops.wire.errors import EdgeopsError

from .cache import Faulty, Image, SimDisk
from .desk import Desk, Violation
from .images import FRESH, ROOT, go_on, start
from .story import Device, furnish

CODES = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS)
BEFORE, WANTED = 2, 5
"""WANTED is one whose release document is written after its stream list."""
FAULTY_S = 70


@dataclass(frozen=True, slots=True)
class Fault:
    """Call number `at` fails with `code`; `lasting`: every later one too that such a disk would refuse."""

    at: int
    call: str
    code: int
    lasting: bool


def ready() -> tuple[Image, Desk]:
    """A device that runs BEFORE and has told so."""
    disk, desk = SimDisk(), Desk()
    furnish(disk, ROOT)
    device = Device(disk, ROOT, desk)
    for version in range(1, BEFORE + 1):
        device.update(version)
    device.close()
    disk.rest()
    return next(disk.images()), desk


def every(image: Image, desk: Desk) -> Iterator[Fault]:
    """Every call of a start and an update from here meets every error, by turns once or for as long as it is not healed."""
    disk = Faulty(SimDisk.of(image), 0, 0)
    device = _start(disk, desk.copy())
    device.update(WANTED)
    for at, call in enumerate(disk.calls, 1):
        for turn, code in enumerate(CODES, at):
            yield Fault(at, call.replace(str(ROOT), ""), code, turn % 2 == 0)


def suffer(image: Image, desk: Desk, fault: Fault) -> None:
    """One fault; raises Violation."""
    disk = Faulty(SimDisk.of(image), fault.at, fault.code, fault.lasting)
    device = _start(disk, desk)
    seen, broken = {device.running}, fault.lasting and fault.code == errno.EIO

    def watch() -> None:
        seen.add(device.running)
        if BEFORE in seen and not device.running and not broken:
            raise Violation("nothing runs any more")

    device.watch = watch
    device.link.order(WANTED)
    device.last(FAULTY_S)
    _without_power(disk, desk)
    disk.healed = True
    device.settle()
    _without_power(disk, desk)
    if not broken and not seen <= {0, BEFORE, WANTED}:  # what cannot be read cannot run
        raise Violation(f"{seen} have run")
    ended, last = desk.stored[len(desk.orders)], device.agent.record.slots["main"].last
    if ended == "committed":
        _check(device, WANTED)
    else:
        _check(device, BEFORE, *([BEFORE - 1] if broken else []))
        if last is None or not last.reason:
            raise Violation(f"the order ended {ended} without a reason")
    version = FRESH + len(desk.orders)
    device.update(version)
    _check(device, version)


def _start(disk: Faulty, desk: Desk) -> Device:
    """Started, again when it could not: whoever started it does that, and the disk is mended then."""
    try:
        device = Device(disk, ROOT, desk)  # type: ignore[arg-type]
    except EdgeopsError:
        disk.healed = True
        disk.disk = SimDisk.of(next(disk.disk.images()))  # type: ignore[attr-defined]
        device = Device(disk, ROOT, desk)  # type: ignore[arg-type]
    device.last(FAULTY_S)
    return device


def _without_power(disk: Faulty, desk: Desk) -> None:
    """Were the power cut now, nothing that was told would be taken back."""
    go_on(start(SimDisk.of(disk.disk.image("lost")), desk.copy()), well=False)  # type: ignore[attr-defined]


def _check(device: Device, *versions: int) -> None:
    if device.running not in versions:
        last = device.agent.record.slots["main"].last
        raise Violation(f"{device.running} runs where {versions} should: {last}, counters {dict(device.agent.record.counters)}")
