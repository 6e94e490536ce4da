"""What a straw is given: a transport, what it keeps, two clocks, randomness, and who says how a trial ends."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edgeops.wire.conditions import Facts

from ..core.health import Evidence, Verdict, judge
from ..core.slot import Target
from .kept import Cupboard

Verdicts = Callable[[Target, float], Verdict]


class Transport(Protocol):
    """A link to a broker. What comes in is handed to `Straw.take` by whoever drives the straw."""

    @property
    def connected(self) -> bool:
        """Whether a publish would go out."""

    def publish(self, topic: str, payload: bytes) -> bool:
        """Send with QoS 1; False when it was not taken."""

    def subscribe(self, topic: str) -> None:
        """Subscribe now and after every reconnect."""

    def unsubscribe(self, topic: str) -> None:
        """The reverse."""


def untouched(target: Target, elapsed_s: float) -> Verdict:
    """The verdict of a device nobody calls: nothing until the window is over, then committed but unproven."""
    return judge(target, Evidence(), elapsed_s)


@dataclass(frozen=True, slots=True)
class Ports:
    """`wall` is what the device's own clock shows (Unix seconds), `monotonic` never goes back, `draw(n)` gives n random bytes.

    `facts` states what conditions look at, beside the link; `say` takes one log line.
    """

    transport: Transport
    kept: Cupboard
    wall: Callable[[], float]
    monotonic: Callable[[], float]
    draw: Callable[[int], bytes]
    verdicts: Verdicts = untouched
    facts: Callable[[], Facts] = dict
    say: Callable[[str], None] = lambda text: None
