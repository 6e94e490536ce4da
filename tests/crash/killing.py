"""A real agent on a real disk, killed at each of its calls to the file system, and each of these calls refused.

`shim.c` sits between Python and the C library. One process (`python -m tests.crash.killing`) plays the story of story.py once; at
each turn it forks for every point that lies in the turn, on a copy of the folder: the child goes on until it is killed, or until
the order at hand has ended although a call was refused. A second child then starts on what is on the disk, as an agent does that
knows nothing, and must run what may run, take nothing back that was told, and take the next update.
"""

import errno
import gc
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgeops.wire.errors import EdgeopsError
from edgeops_agent.shell.files import DISK

from . import images
from .desk import BAD, Desk, Violation, first_trust, model, papers
from .forks import WELL, end_with, ended, forked
from .shim import FAILURES, LASTING, Point, Shim, build, points
from .story import STORY, Device, furnish, mute, tell

STATE = Path("state")
"""Where the agent's folder is, from where a process stands; each stands in a folder of its own."""
FAULTY_S = 70
HERE = Path(__file__).parents[2]
MEMORY = Path("/dev/shm")
REFUSED_TO_START = 3


@dataclass
class Told(Desk):
    """A desk whose knowledge outlives the process: each time it has heard something, it is written to `wire`."""

    wire: int = -1

    def hear(self, topic: str, payload: bytes) -> list[tuple[str, bytes]]:
        """See Desk."""
        answers = super().hear(topic, payload)
        self.write()
        return answers

    def write(self) -> None:
        """One line."""
        if self.wire >= 0:
            os.write(self.wire, json.dumps(asdict(self)).encode() + b"\n")


def known(lines: list[bytes]) -> Desk:
    """The desk of the last such line."""
    said: dict[str, Any] = json.loads([line for line in lines if line.startswith(b"{")][-1])
    del said["wire"]
    return Desk(**{**said, "stored": {int(order): verdict for order, verdict in said["stored"].items()}})


@dataclass
class Play:
    """The child that goes on with the story until it is killed, or until the order has ended that met a refusal."""

    point: Point
    shim: Shim
    desk: Told
    ran: int
    boots: int

    def look(self, device: Device) -> None:
        """A turn is over."""
        self.desk.write()
        if len(self.shim.seen()) < self.point.call or self.point.mode not in FAILURES:
            self.ran, self.boots = device.running, self.desk.boots
            return
        may_stop = self.point.code == errno.EIO
        if may_stop and device.agent.record.unsure:  # its newest copy cannot be read, and it says that it does not know
            self.desk.told |= {"counter": 0, "command": 0, "floor": 0}
        seen = {self.ran if self.boots == self.desk.boots else 0, device.running}

        def watch() -> None:
            self.desk.write()
            seen.add(device.running)
            if seen != {0} and not device.running and not may_stop:
                raise Violation("nothing runs any more")

        device.watch = watch
        if self.point.mode == LASTING:
            device.last(FAULTY_S)
            self.shim.arm()
        device.settle()
        self._judge(device)
        self.desk.write()
        os._exit(WELL)

    def _judge(self, device: Device) -> None:
        """The order at hand has ended, well or with a reason, and what ran is untouched; what cannot be read cannot run."""
        desk = self.desk
        if not desk.orders:
            return
        verdict, last = desk.stored[len(desk.orders)], device.agent.record.slots["main"].last
        if verdict != "committed" and (last is None or not last.reason):
            raise Violation(f"the order ended {verdict} without a reason")
        may_run = {desk.committed, *(desk.orders[:-1] if verdict != "committed" and self.point.code == errno.EIO else ())} - {BAD}
        if device.running not in may_run:
            raise Violation(f"{device.running} runs after orders {desk.orders}, the last ended {verdict}: {last}")

    def leave(self, error: BaseException | None) -> None:
        """The story is over, which it should not be."""
        if isinstance(error, EdgeopsError) and self.desk.boots > self.boots and self.point.mode in FAILURES:
            os.write(self.desk.wire, f"refused {error.reason}\n".encode())
            os._exit(REFUSED_TO_START)
        told = "the call never came" if error is None else "".join(traceback.format_exception(error)[-3:])
        os.write(self.desk.wire, f"! {told.strip()[-600:]!r}\n".encode())
        os._exit(1)


def fingerprint(place: Path) -> str:
    """Equal for folders that hold the same, but for numbers of processes."""
    whole = hashlib.sha256()
    for path in sorted(place.rglob("*")):
        name = re.sub(r"\.\d+\.tmp", ".tmp", str(path.relative_to(place)))
        whole.update(name.encode() + b"\0")
        if path.is_file() and path.name != "lock":
            whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


@dataclass
class Walk:
    """Plays the story once, and at each turn every point of it that is wanted."""

    room: Path
    wanted: dict[int, list[Point]] = field(default_factory=dict)
    enough: int = 20
    desk: Told = field(default_factory=Told)
    turns: list[str] = field(default_factory=list)
    played: int = 0
    bad: list[str] = field(default_factory=list)
    refused: int = 0
    recovered: dict[str, str] = field(default_factory=dict)
    _shim: Shim = field(default_factory=lambda: Shim(STATE))
    _looks: int = 0
    _play: Play | None = None

    def walk(self) -> None:
        """From an enrolled device to the end."""
        os.chdir(self.room)
        furnish(DISK, STATE)
        try:
            self._look(None)
            self._look(tell(DISK, STATE, self.desk, watch=self._look))
        except BaseException as error:
            if self._play:
                self._play.leave(error)
            raise
        if self._play:
            self._play.leave(None)

    def _look(self, device: Device | None) -> None:
        """A turn is over, the next one begins."""
        if self._play:
            return self._play.look(device) if device else None
        if self._looks:
            self.turns.append(self._shim.seen())
        for point in self.wanted.get(self._looks, ()) if len(self.bad) < self.enough else ():
            self._meet(point, device.running if device else 0)
            if self._play:
                return None
        self._looks += 1
        return self._shim.arm()

    def _meet(self, point: Point, ran: int) -> None:
        """Fork, play, recover. In the child this returns at once, and the story goes on."""
        place = Path(tempfile.mkdtemp(dir=self.room))
        shutil.copytree(STATE, place / STATE)
        child, wire = forked(place)
        if not child:
            self.desk.wire = wire
            self.desk.write()
            self._play = Play(point, self._shim, self.desk, ran, self.desk.boots)
            self._shim.arm(point.call, point.mode, point.code)
            return
        self.played += 1
        status, lines = ended(child, wire)
        found = self._judge(point, status, lines) or self._recover(place, known(lines), point.mode not in FAILURES)
        self.bad += [f"{point}: {found}"] if found else []
        shutil.rmtree(place)

    def _judge(self, point: Point, status: int, lines: list[bytes]) -> str:
        """What was wrong with the end of the child, "" for nothing."""
        last = lines[-1].decode()
        if point.mode not in FAILURES:
            return "" if status == -signal.SIGKILL else f"ended with {status}: {last}"
        self.refused += status == REFUSED_TO_START
        return "" if status in (WELL, REFUSED_TO_START) else f"ended with {status}: {last}"

    def _recover(self, place: Path, desk: Desk, well: bool) -> str:
        """What a fresh agent comes to on this folder, "" for well; equal folders of equal desks are tried once."""
        key = f"{fingerprint(place)} {desk.key()} {well}"
        if key not in self.recovered:
            self._shim.arm()
            child, wire = forked(place)
            if not child:
                end_with(lambda: images.recover(DISK, desk, STATE, well), wire)
            status, lines = ended(child, wire)
            self.recovered[key] = b" ".join(lines).decode() if status in (WELL, 1) else f"the fresh agent ended with {status}"
        return self.recovered[key]


def calls(room: Path) -> list[str]:
    """The kinds of the calls of each turn, found by playing the story in a child; raises Violation when it does not end well."""
    child, wire = forked(room)
    if not child:
        walk = Walk(room)
        end_with(lambda: walk.walk() or os.write(wire, json.dumps(walk.turns).encode()), wire)
    status, lines = ended(child, wire)
    shutil.rmtree(room / STATE)
    if status != WELL:
        raise Violation(f"the story itself: {lines}")
    return list(json.loads(lines[0]))


def walk_all(room: Path, wanted: dict[int, list[Point]], turns: list[str], enough: int) -> dict[str, Any]:
    """What comes of these points; ends after so many violations."""
    walk = Walk(room, wanted, enough)
    walk.walk()
    changed = [] if walk.turns == turns else ["the story is not the same each time"]
    return {"points": walk.played, "disks": len(walk.recovered), "refused": walk.refused, "bad": walk.bad + changed}


def search(room: Path, parts: int, most: int, like: str, enough: int) -> list[dict[str, Any]]:
    """See `run`: what each part has found."""
    try:
        turns = calls(room)
    except Violation as error:
        return [{"points": 0, "disks": 0, "refused": 0, "bad": [str(error)]}]
    found = [point for point in points(turns) if re.search(like, str(point))]
    if most < len(found):
        found = random.Random(most).sample(found, most)
    walkers = []
    for part in range(parts):
        wanted: dict[int, list[Point]] = {}
        for point in found[part::parts]:
            wanted.setdefault(point.turn, []).append(point)
        (place := room / str(part)).mkdir()
        child, wire = forked(place, 0)
        if not child:
            end_with(lambda: os.write(wire, json.dumps(walk_all(place, wanted, turns, enough)).encode()), wire)  # noqa: B023
        walkers.append((child, wire))
    return [json.loads(b"".join(ended(*walker)[1])) for walker in walkers]


def main() -> int:
    """`python -m tests.crash.killing PARTS MOST LIKE ENOUGH`: what `search` finds, as JSON."""
    parts, most, like, enough = sys.argv[1:]
    mute()
    papers(), first_trust()
    for version in (*STORY, *(images.FRESH + orders for orders in range(len(STORY) + 1))):
        model(version)
    gc.freeze()  # children neither sign all this anew nor copy what they never touch
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        print(json.dumps(search(Path(name), int(parts), int(most), like, int(enough))))
    return 0


def run(
    say: Callable[[str], None] = print, parts: int = 2, most: int = 10**9, like: str = "", path: str = "", enough: int = 20
) -> tuple[int, list[str]]:
    """(points, violations) of all points whose text is `like` this, or of so many, with the agent that is found on `path`."""
    with tempfile.TemporaryDirectory() as name:
        found = os.pathsep.join(filter(None, (path, *sys.path)))
        env = {**os.environ, "LD_PRELOAD": str(build(Path(name))), "PYTHONHASHSEED": "0", "PYTHONPATH": found}
        command = [sys.executable, "-m", "tests.crash.killing", str(parts), str(most), like, str(enough)]
        said = json.loads(subprocess.run(command, env=env, cwd=HERE, stdout=subprocess.PIPE, check=True).stdout)
    total, disks, refused = (sum(one[what] for one in said) for what in ("points", "disks", "refused"))
    bad = [line for one in said for line in one["bad"]]
    say(f"real processes: points {total}, different disks {disks}, starts refused by name {refused}, violations {len(bad)}")
    return total, bad


if __name__ == "__main__":
    sys.exit(main())
