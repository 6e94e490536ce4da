"""Many straws in one process and one thread: enrol them, drive them, say when all are online."""

import contextlib
import secrets
import selectors
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeops.wire import topics
from edgeops.wire.errors import EdgeopsError, Misuse
from edgeops.wire.token import Token

from ..shell import facts
from ..shell.credentials import files_of
from ..shell.disk import StateFolder
from ..shell.enrolment import enroll
from ..shell.identity import Paths, load_signer
from ..shell.link import LinkSettings
from ..shell.reach import adopt, mqtt_ways, read_sites
from .kept import Cupboard, Files, Shelf
from .lines import DIALS_A_TURN, Line
from .ports import Ports
from .presence import leave
from .straw import Straw

LOOK_S = 0.25
GOODBYE_S = 5.0


@dataclass(frozen=True, slots=True)
class Seat:
    """A straw and its line."""

    straw: Straw
    line: Line


def read_tokens(text: str) -> list[str]:
    """One token per line; raises Misuse before any of them is spent."""
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if not found:
        raise Misuse("no-tokens", "there is no token to read; `edgeops device register` prints one per device")
    names = set()
    for number, token in enumerate(found, 1):
        try:
            device = Token.decode(token).device
            if not device:
                raise Misuse("token-malformed", "it is a join line, which is for devices with a key from the factory")
        except Misuse as error:
            raise Misuse(error.reason, f"token {number}: {error.message}") from None
        if device in names:
            raise Misuse("token-twice", f"token {number}: there is another one for {device}")
        names.add(device)
    return found


def enrol_all(tokens: Sequence[str], root: Path, told: Callable[[int], None]) -> list[Path]:
    """Enrol every device that `root` does not hold yet, each in a folder of its own; `told` hears how many are done."""
    folders = []
    for number, text in enumerate(tokens, 1):
        device = Token.decode(text).device
        folder = root / device
        try:
            if not StateFolder(folder).is_enrolled():
                enroll(text, folder)
        except EdgeopsError as error:
            raise type(error)(error.reason, f"{device} (token {number} of {len(tokens)}): {error.message}") from None
        folders.append(folder)
        told(number)
    return folders


class Host:
    """The straws of these folders. `run` returns when `stop` was called or `go_on` says no."""

    def __init__(self, folders: Sequence[Path], shelf: Path, most_bytes: int, say: Callable[[str], None]) -> None:
        self._selector = selectors.DefaultSelector()
        self._say = say
        self._shelf = Shelf(most_bytes, Files(shelf))
        self._random = secrets.SystemRandom()
        self._device = facts.capabilities()
        self._stopping = False
        self._seats = [self._seat(folder) for folder in folders]

    def _seat(self, root: Path) -> Seat:
        paths, folder = Paths(root), StateFolder(root)
        folder.claim()
        folder.prepare()
        if (record := adopt(folder, paths, folder.load())) != folder.load():
            folder.save(record)
        line = Line(self._selector, self._random.random)
        ports = Ports(
            line, Cupboard(folder, self._shelf), time.time, time.monotonic, secrets.token_bytes,
            say=self._say,
        )  # fmt: skip
        signer, boot = load_signer(paths), secrets.token_hex(16)
        straw = Straw(ports, signer, self._device, boot)
        trust, (key, certificate) = straw.record.trust, files_of(paths)
        line.up, line.take = straw.connected, straw.take
        line.open(LinkSettings(
            mqtt_ways(read_sites(folder, paths, straw.record)), trust.device, certificate, key,
            topics.up(trust.device, "presence"), leave(trust, signer, boot, "gone"),
        ))  # fmt: skip
        return Seat(straw, line)

    @property
    def online(self) -> int:
        """How many are connected."""
        return sum(seat.line.connected for seat in self._seats)

    def stop(self) -> None:
        """Make `run` return soon (safe in a signal handler)."""
        self._stopping = True

    def run(self, all_online: Callable[[int], None], go_on: Callable[[], bool]) -> None:
        """Drive all straws; `all_online` is called once, when every one is connected."""
        for seat in self._seats:
            seat.straw.boot()
        self._shelf.tidy()
        told = False
        try:
            while not self._stopping and go_on():
                self._turn()
                if not told and self.online == len(self._seats):
                    told = True
                    all_online(len(self._seats))
        finally:
            self._leave()

    def _turn(self) -> None:
        """One look at everybody, then the sockets until the next one is due."""
        now = time.monotonic()
        dialled = 0
        for seat in self._seats:
            if seat.line.idle and now >= seat.line.dial_at and dialled < DIALS_A_TURN:
                seat.line.dial()
                dialled += 1
            seat.line.look()
            seat.straw.look()
        self._serve(0.0 if dialled == DIALS_A_TURN else LOOK_S)

    def _serve(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            ready = self._selector.select(max(0.0, end - time.monotonic()))
            for key, mask in ready:
                key.data.serve(mask)
            if self._stopping or time.monotonic() >= end:
                return

    def _leave(self) -> None:
        """Goodbyes first, then the connections; a broker that does not take them in time is left alone."""
        for seat in self._seats:
            seat.line.publish(*seat.straw.farewell())
        deadline = time.monotonic() + GOODBYE_S
        while time.monotonic() < deadline and any(seat.line.unsent for seat in self._seats):
            for key, mask in self._selector.select(0.1):
                key.data.serve(mask)
        for seat in self._seats:
            with contextlib.suppress(OSError):
                seat.line.close()
        while time.monotonic() < deadline and any(seat.line.unsent for seat in self._seats):
            for key, mask in self._selector.select(0.1):
                key.data.serve(mask)
        self._selector.close()
