"""Bits that rot: every byte of the three copies of the record, and every byte of what a model is made of, one at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeops.wire.errors import Rejected
from edgeops_agent.core.record import Record
from edgeops_agent.shell.disk import StateFolder

from .cache import Image, SimDisk
from .desk import Desk, Violation, model
from .images import ROOT, go_on, start, update
from .story import Device, furnish, tell

COPIES = tuple(f"{ROOT}/record.{name}" for name in ("a", "b", "kept"))
CANDIDATE = 5
PAST = 8
"""So many bytes after the end of a record are flipped too."""


@dataclass(frozen=True, slots=True)
class Flip:
    """One bit of the byte at `at` of a file is another one."""

    path: str
    at: int
    bit: int = 1

    def of(self, image: Image) -> Image:
        """The disk with it."""
        data = bytearray(dict(image.files)[self.path])
        data[self.at] ^= self.bit
        return image.changed(self.path, bytes(data))


def end() -> tuple[Image, Desk]:
    """A device at the end of its story."""
    disk, desk = SimDisk(), Desk()
    furnish(disk, ROOT)
    tell(disk, ROOT, desk).close()
    disk.rest()
    return next(disk.images()), desk


def of_records(image: Image) -> Iterator[Flip]:
    """Every byte of every copy."""
    files = dict(image.files)
    for path in COPIES:
        length = len(files[path].partition(b"\n")[0])
        for at in range(min(length + PAST, len(files[path]))):
            yield Flip(path, at, 1 << at % 8)


def check_record(image: Image, flip: Flip) -> None:
    """One copy is damaged (the third one with both others gone): whatever is believed is the newest; raises Violation."""
    whole = _load(image)
    if flip.path == COPIES[2]:
        image = image.changed(COPIES[0], b"{}").changed(COPIES[1], b"{}")
        try:
            _load(flip.of(image))
        except Rejected as error:
            if error.reason != "record-lost":
                raise Violation(f"{flip}: {error}") from error
            return
        if flip.at < len(dict(image.files)[flip.path].rstrip(b"\n")):
            raise Violation(f"{flip} was not noticed")
    found = _load(flip.of(image))
    if found != whole and not found.unsure:
        raise Violation(f"{flip}: an older record is believed")


def check_last_resort(image: Image, desk: Desk) -> None:
    """Both copies are gone: the kept one says what runs, orders wait until the manager has answered; raises Violation."""
    disk, told = SimDisk.of(image.changed(COPIES[0], b"{}").changed(COPIES[1], b"")), desk.copy()
    told.told |= {"counter": 0, "command": 0}  # it says that it does not know
    device = start(disk, told)
    if not device.agent.record.unsure:
        raise Violation("the third copy is believed to be the newest record")
    go_on(device)
    if device.agent.record.unsure or device.agent.record.trust.counter < desk.told["counter"]:
        raise Violation("an older counter is believed")
    update(device)


def live_on(image: Image, desk: Desk, flip: Flip) -> None:
    """One flip in a record, and the whole agent: it goes on, and the next update works; raises Violation."""
    told = desk.copy()
    told.told |= {"counter": 0, "command": 0, "floor": 0}
    device = start(SimDisk.of(flip.of(image)), told)
    unsure = device.agent.record.unsure
    if not unsure and device.agent.record.trust.counter < desk.told["counter"]:
        raise Violation(f"{flip}: an older counter is believed")
    go_on(device)
    if device.agent.record.trust.counter < desk.told["counter"]:
        raise Violation(f"{flip}: an older counter is believed after the manager has answered")
    update(device)


def of_blobs(image: Image, version: int) -> Iterator[Flip]:
    """Every byte of the objects and the release document of a version."""
    files = dict(image.files)
    for name in model(version).objects:
        yield from (Flip(f"{ROOT}/objects/{name}", at, 1 << at % 8) for at in range(len(files[f"{ROOT}/objects/{name}"])))
    document = f"{ROOT}/documents/{model(version).digest}"
    yield from (Flip(document, at, 1 << at % 8) for at in range(len(files[document])))


def check_blob(image: Image, desk: Desk, flip: Flip, current: int, previous: int) -> None:
    """What ran is damaged while the agent is away: the build before runs, none where it needs the same; raises Violation."""
    device = Device(SimDisk.of(flip.of(image)), ROOT, desk.copy(), offline=True)
    device.settle()
    # A document is known by the digest of its payload; its signatures have been looked at when it came.
    harmless = flip.path.startswith(f"{ROOT}/documents/") and device.running == current
    both = flip.path.rpartition("/")[2] in model(previous).objects
    if device.running != (0 if both else previous) and not harmless:
        raise Violation(f"{flip}: {device.running} runs")
    if both:  # what nothing can run without is fetched anew
        go_on(device, well=False)
        update(device)


def check_candidate(image: Image, desk: Desk, name: str, at: int) -> None:
    """A byte of what an earlier order had fetched is damaged when the version is ordered: it is fetched anew; raises Violation."""
    disk = SimDisk.of(Flip(f"{ROOT}/objects/{name}", at).of(fetched(image)))
    device = Device(disk, ROOT, desk.copy())
    device.settle()
    device.update(CANDIDATE)
    if device.running != CANDIDATE or disk.read(Path(f"{ROOT}/objects/{name}")) != model(CANDIDATE).objects[name]:
        raise Violation(f"{name} damaged at {at}: {device.running} runs, {device.agent.record.slots['main'].last}")


def of_candidate() -> Iterator[tuple[str, int]]:
    """Every byte of CANDIDATE's own objects."""
    for name, data in model(CANDIDATE).objects.items():
        yield from ((name, at) for at in range(len(data)) if name not in model(CANDIDATE - 1).objects)


def fetched(image: Image) -> Image:
    """The same disk with all objects of CANDIDATE."""
    for name, data in model(CANDIDATE).objects.items():
        image = image.changed(f"{ROOT}/objects/{name}", data)
    return image


def _load(image: Image) -> Record:
    return StateFolder(ROOT, SimDisk.of(image)).load()
