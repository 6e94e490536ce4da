"""What the hands of a slot tell the supervisor, besides events of the update machine."""

from collections.abc import Callable
from dataclasses import dataclass

from ..core.slot import Build, Event


@dataclass(frozen=True, slots=True)
class Ran:
    """`Run(build)` has been carried out."""

    build: Build | None


@dataclass(frozen=True, slots=True)
class Collected:
    """Telemetry of one build: a closed sketch window if there is one, calls and errors since the last collection."""

    build: Build
    window: bytes | None
    calls: int
    errors: int


@dataclass(frozen=True, slots=True)
class Crashed:
    """A committed build's worker died and is started again; `words` are the last it wrote, at most 500 bytes."""

    build: Build
    reason: str
    words: str = ""


@dataclass(frozen=True, slots=True)
class Fallen:
    """What had passed its trial lost its worker and is not started again unasked: its runner does not know if it is committed."""

    build: Build
    reason: str
    words: str = ""


@dataclass(frozen=True, slots=True)
class Ailing:
    """A committed, undamaged build could not be kept running for a reason that may pass; nothing of the slot runs now."""

    build: Build
    reason: str


Post = Callable[[Event | Ran | Collected | Crashed | Fallen | Ailing], None]
"""How the hands of a slot tell it."""
