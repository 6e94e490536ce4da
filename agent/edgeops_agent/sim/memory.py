"""A world without sockets, disk or waiting: a clock that jumps to the next event, a broker in memory, a folder in memory.

`Air` is the broker and the network in one. It loses, doubles and delays messages as `fate` says, and does as a real one does when a
link is cut: all that is under way to or from that device is gone. There is no randomness here: who wants noise seeds a `fate`.
"""

import heapq
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from edgeops.wire import topics
from edgeops.wire.errors import Misuse, Rejected

from ..core import record as records
from ..core.record import Record

Fate = Callable[[str], tuple[float, ...]]


@dataclass(slots=True)
class FakeClock:
    """Seconds since the world began; `wall` counts from `epoch` (Unix seconds)."""

    epoch: int
    at: float = 0.0

    def monotonic(self) -> float:
        """Seconds, never going back."""
        return self.at

    def wall(self) -> float:
        """Unix seconds."""
        return self.epoch + self.at


@dataclass(slots=True)
class MemoryFolder:
    """One straw's folder in memory, with the same two copies of the record that a disk would have."""

    copies: dict[str, bytes | None] = field(default_factory=lambda: {"a": None, "b": None})
    documents: dict[str, bytes] = field(default_factory=dict)
    seq: int = 0

    def load(self) -> Record:
        """The newest valid record; raises Misuse("not-enrolled")."""
        found = records.newest(self.copies)
        if found is None:
            raise Misuse("not-enrolled", "this straw was never enrolled")
        return found[2]

    def save(self, record: Record) -> None:
        """Write over the older copy."""
        self.seq += 1
        self.copies["ab"[self.seq % 2]] = records.encode(record, self.seq)

    def document(self, digest: str) -> bytes:
        """A kept document; raises Rejected("missing-document")."""
        if digest not in self.documents:
            raise Rejected("missing-document", f"document {digest[:12]} is not on this device")
        return self.documents[digest]

    def put_document(self, digest: str, data: bytes) -> None:
        """Keep a signed document under the digest of its payload."""
        self.documents[digest] = data

    def sweep(self, objects: Iterable[str], documents: Iterable[str]) -> int:
        """Delete documents that are not named (objects lie on the shelf)."""
        wanted = set(documents)
        gone = [name for name in self.documents if name not in wanted]
        for name in gone:
            del self.documents[name]
        return len(gone)


class MemoryLink:
    """One device's end of the air. `life` counts its connections: what belongs to an earlier one never arrives."""

    def __init__(self, air: "Air", device: str) -> None:
        self._air, self.device = air, device
        self.connected = False
        self.life = 0
        self.filters: set[str] = set()
        self.take: Callable[[str, bytes], None] = lambda topic, data: None

    def publish(self, topic: str, payload: bytes) -> bool:
        """Send to the manager; False when not connected."""
        if self.connected:
            self._air.carry(self, topic, payload, lambda: self._air.up(topic, payload))
        return self.connected

    def subscribe(self, topic: str) -> None:
        """Hear this filter from now on."""
        self.filters.add(topic)

    def unsubscribe(self, topic: str) -> None:
        """The reverse."""
        self.filters.discard(topic)


class Air:
    """Everything under way, by the time it arrives. `up` takes what devices send."""

    def __init__(self, clock: FakeClock, fate: Fate, up: Callable[[str, bytes], None]) -> None:
        self.clock, self.fate, self.up = clock, fate, up
        self._links: dict[str, MemoryLink] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def link(self, device: str) -> MemoryLink:
        """The link of a device, the same after a power cut."""
        return self._links.setdefault(device, MemoryLink(self, device))

    def join(self, device: str) -> None:
        """The device's link comes up."""
        self._links[device].connected = True

    def cut(self, device: str) -> None:
        """The link goes down with all that is under way on it; a broker that keeps no sessions forgets its filters."""
        link = self._links[device]
        link.connected = False
        link.life += 1

    def down(self, topic: str, payload: bytes) -> None:
        """The manager publishes: to the device of the topic, or to all who listen to the stream."""
        parsed = topics.parse(topic)
        if isinstance(parsed, topics.DeviceTopic):
            wanted, listeners = topics.downs_of(parsed.device), [self._links[parsed.device]]
        else:
            wanted, listeners = topics.frames_of(parsed.channel, parsed.stream), list(self._links.values())
        for link in listeners:
            if link.connected and wanted in link.filters:
                self.carry(link, topic, payload, lambda link=link: self._arrive(link, wanted, topic, payload))  # type: ignore[misc]

    def _arrive(self, link: MemoryLink, wanted: str, topic: str, payload: bytes) -> None:
        if wanted in link.filters:
            link.take(topic, payload)

    def carry(self, link: MemoryLink, topic: str, payload: bytes, arrive: Callable[[], None]) -> None:
        """Let a message of this life of the link arrive as often and as late as fate has it."""
        life = link.life
        for delay in self.fate(topic):
            self.after(delay, lambda: arrive() if link.connected and link.life == life else None)

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call this when so much time has passed; first come, first served."""
        heapq.heappush(self._due, (self.clock.at + seconds, next(self._count), call))

    def run(self, until: float) -> None:
        """Let time pass up to `until`, one event after another."""
        while self._due and self._due[0][0] <= until:
            self.clock.at, _, call = heapq.heappop(self._due)
            call()
        self.clock.at = until
