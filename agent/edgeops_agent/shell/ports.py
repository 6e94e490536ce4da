"""Everything the supervisor gets from the world: disk, clocks, randomness, what this device is, and who does the work it orders.

The defaults are the real ones; who drives an agent without sockets, threads or waiting gives others.
"""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Protocol

from edgeops.wire.trust import Capabilities

from ..core.slot import Build, Command
from . import facts, https
from .calling import make_link
from .clock import Clock
from .disk import StateFolder
from .files import DISK, Files
from .gates import MakeSenses
from .inbox import Inbox
from .link import LinkSettings
from .listen import Listeners
from .news import Post
from .reach import Way
from .runner import SlotRunner
from .senses import Senses
from .upkeep import Errand, Fetch, in_thread
from .vacancy import Vacancy
from .workers import Worker


class Link(Protocol):
    """The way to the manager and back; see `link.DeviceLink`."""

    connected: bool
    refused: int
    expired: bool
    way: Way | None
    why: str

    def start(self) -> None:
        """Begin connecting in the background."""

    def change(self, settings: LinkSettings) -> None:
        """Use these from now on."""

    def subscribe(self, topic: str) -> None:
        """Listen to a topic."""

    def unsubscribe(self, topic: str) -> None:
        """The reverse."""

    def publish(self, topic: str, payload: bytes, qos: int = 1) -> bool:
        """Hand a message over; False when not connected."""

    def stop(self, farewell: tuple[str, bytes] | None = None) -> None:
        """Say goodbye and disconnect."""


class Runner(Protocol):
    """The hands of one slot; see `runner.SlotRunner`."""

    @property
    def worker(self) -> Worker | None:
        """The one that takes the calls, if there is one."""

    def start(self) -> None:
        """Begin working."""

    def do(self, command: Command | Build) -> None:
        """Carry out a command, soon. A build: its files were written anew, so if it takes the calls, let a new worker take over."""

    def stop(self) -> None:
        """Let nothing of the slot run any more."""


class Doorway(Protocol):
    """The sockets of the local endpoint; see `listen.Listeners`."""

    @property
    def sockets(self) -> Sequence[socket]:
        """All of them."""

    @property
    def port(self) -> int:
        """The TCP port really bound."""

    @property
    def path(self) -> Path | None:
        """Where the Unix socket is, if there is one."""

    def close(self) -> None:
        """Close all."""


MakeLink = Callable[[LinkSettings, Inbox, Clock, Callable[[], float]], Link]
MakeRunner = Callable[[str, StateFolder, Sequence[socket], Vacancy, str, Post, float], Runner]


@dataclass(frozen=True, slots=True)
class Ports:
    """`monotonic` never goes back, `wall` is what the device's own clock shows (Unix seconds), `draw(n)` gives n random bytes.

    `aside` carries out what takes long beside the loop; `fetch` asks the manager over HTTPS.
    """

    files: Files = DISK
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    draw: Callable[[int], bytes] = secrets.token_bytes
    capabilities: Callable[[], Capabilities] = facts.capabilities
    link: MakeLink = make_link
    runner: MakeRunner = SlotRunner
    senses: MakeSenses = Senses
    listen: Callable[[str, int, Path | None], Doorway] = Listeners.open
    fetch: Fetch = https.fetch
    aside: Callable[[str, Callable[[], None]], Errand] = in_thread

    def chance(self) -> float:
        """A random number in [0, 1)."""
        return int.from_bytes(self.draw(4)) / (1 << 32)
