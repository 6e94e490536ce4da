"""The disk part of the crash proof: the story cut at every call that changes the disk, with every disk that a power cut may leave.

Each image is started anew by the real supervisor. It must run, with nobody to talk to, a model that may run; take nothing back
that it has told; end the order at hand well; and take the next update.
"""

import functools
import random
from dataclasses import dataclass
from pathlib import Path

from edgeops.wire.errors import EdgeopsError
from edgeops_agent.shell.files import Files

from .cache import Image, SimDisk
from .desk import BAD, Desk, Violation
from .story import Device, furnish, tell

ROOT = Path("/state")
FRESH = 9
"""Versions from here on are those of the next update."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The power goes before call `number`, and leaves this; the desk knows so much. `call` names it, for people."""

    number: int
    call: str
    image: Image
    desk: Desk


class Camera:
    """Takes all images, or `most` drawn by `dice`, at each call that changes the disk; before each sync also what a kill leaves."""

    def __init__(self, disk: SimDisk, desk: Desk, most: int, dice: random.Random) -> None:
        self._disk, self._desk, self._most, self._dice = disk, desk, most, dice
        self.calls = 0
        self.cuts: list[Cut] = []
        self.kills: list[tuple[str, SimDisk, Desk]] = []
        self._known: tuple[str, Desk] | None = None
        disk.watch = self.look

    def look(self, name: str, path: str) -> None:
        """A call comes."""
        self.calls += 1
        key = self._desk.key()
        if self._known is None or self._known[0] != key:
            self._known = (key, self._desk.copy())
        call = f"{name} {path.removeprefix(str(ROOT))}"
        images = self._disk.some(self._most, self._dice) if self._most else self._disk.images()
        self.cuts += [Cut(self.calls, call, image, self._known[1]) for image in images]
        if name == "sync":
            self.kills.append((f"{self.calls} ({call})", self._disk.killed(), self._known[1]))


@functools.cache
def first(most: int = 0) -> Camera:
    """The cuts of the story, at each call at most `most` (0: all)."""
    disk, desk = SimDisk(), Desk()
    furnish(disk, ROOT)
    disk.rest()
    camera = Camera(disk, desk, most, random.Random(0))
    tell(disk, ROOT, desk, disk.rest)
    return camera


def second(begin: SimDisk, desk: Desk, most: int, dice: random.Random) -> list[Cut]:
    """Cuts while a device recovers from a cut, or from a kill that left the page cache as it was; `most` for each call."""
    camera = Camera(begin, desk, most, dice)
    go_on(start(begin, desk))
    begin.watch = lambda name, path: None
    return camera.cuts


def start(disk: Files, desk: Desk, root: Path = ROOT) -> Device:
    """The agent after a power cut, with nobody to talk to: it runs what may run."""
    device = Device(disk, root, desk, offline=True)
    device.settle()
    current = device.agent.record.slots["main"].current
    if device.running not in desk.may_run() or device.running == BAD:
        raise Violation(f"{device.running} runs, of what may run {desk.may_run()}")
    if device.running != (current.version if current else 0):
        raise Violation(f"{device.running} runs, the record says {current}")
    return device


def go_on(device: Device, well: bool = True) -> None:
    """Somebody is there again: the order at hand ends, and does it well."""
    desk = device.desk
    device.offline = False
    device.link.join()
    device.settle()
    if well and desk.orders and desk.orders[-1] != BAD:
        _expect(device, desk.orders[-1])


def _expect(device: Device, version: int) -> None:
    ended = device.desk.stored[len(device.desk.orders)]
    if device.running != version or ended != "committed":
        raise Violation(f"order of {version} ended {ended}: {device.agent.record.slots['main'].last}; {device.running} runs")


def update(device: Device) -> None:
    """The next update works."""
    version = FRESH + len(device.desk.orders)
    device.update(version)
    _expect(device, version)


def recover(disk: Files, desk: Desk, root: Path = ROOT, well: bool = True) -> None:
    """All that must hold after a cut; raises Violation. `well`: the order at hand must end well."""
    try:
        device = start(disk, desk, root)
        go_on(device, well)
        update(device)
    except EdgeopsError as error:
        raise Violation(f"the agent does not start: {error}") from error


@functools.cache
def known() -> dict[tuple[Image, str], str]:
    """What recovering from an equal disk, by a device that had told the same, has come to: "" for well."""
    return {}


def check(cut: Cut) -> None:
    """Recover from a cut; raises Violation."""
    key = (cut.image, cut.desk.key())
    if key not in known():
        known()[key] = ""
        try:
            recover(SimDisk.of(cut.image), cut.desk.copy())
        except Violation as error:
            known()[key] = str(error)
    if known()[key]:
        raise Violation(known()[key])
