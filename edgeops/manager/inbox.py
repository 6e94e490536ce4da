"""Messages of devices on their way in: one queue a device, served in turn, all together bounded in number and bytes.

A device that floods fills its own queue, waits its own turn and loses its own messages; everybody else's are neither lost nor
late. Nothing is lost for good: reports repeat what has not been acknowledged, and a lost telemetry window is a gap.
"""

import threading
from collections import Counter, deque

Message = tuple[str, bytes]
MOST_MESSAGES, MOST_BYTES = 20_000, 64 << 20


class Inbox:
    """`put` from any thread never blocks; `get` gives each sender's oldest message in turn."""

    def __init__(self, most_messages: int = MOST_MESSAGES, most_bytes: int = MOST_BYTES) -> None:
        self._limits = most_messages, most_bytes
        self._ready = threading.Condition()
        self._queues: dict[str, deque[Message]] = {}
        self._held: Counter[str] = Counter()
        self._arrived: Counter[str] = Counter()
        self._messages, self._bytes, self._dropped = 0, 0, 0
        self._closed = False

    def put(self, topic: str, payload: bytes) -> None:
        """Take in one message; when all is full, the sender who holds most loses its oldest ones."""
        sender = sender_of(topic)
        with self._ready:
            self._arrived[sender] += 1
            self._queues.setdefault(sender, deque()).append((topic, payload))
            self._count(sender, 1, len(payload))
            while self._messages > self._limits[0] or self._bytes > self._limits[1]:
                self._drop(sender)
            self._ready.notify()

    def get(self, most: int = 1) -> list[Message]:
        """The next messages, at most `most`, waiting for the first; none once closed."""
        with self._ready:
            while not self._queues and not self._closed:
                self._ready.wait()
            return [] if self._closed else [self._next() for _ in range(min(most, self._messages))]

    def _next(self) -> Message:
        sender = next(iter(self._queues))
        queue = self._queues.pop(sender)
        message = queue.popleft()
        if queue:
            self._queues[sender] = queue
        self._count(sender, -1, -len(message[1]))
        return message

    def close(self) -> None:
        """Make every `get` return nothing; what waits is forgotten."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()

    def loud(self, most: int) -> list[str]:
        """The senders of more than `most` messages since counting began."""
        with self._ready:
            return [sender for sender, count in self._arrived.items() if count > most]

    def count_anew(self) -> None:
        """Begin to count who sends how much."""
        with self._ready:
            self._arrived = Counter()

    @property
    def waiting(self) -> int:
        """Messages that wait."""
        return self._messages

    @property
    def dropped(self) -> int:
        """Messages lost because all was full."""
        return self._dropped

    def _count(self, sender: str, messages: int, size: int) -> None:
        self._messages += messages
        self._bytes += size
        self._held[sender] += size + messages
        if self._held[sender] <= 0:
            del self._held[sender]

    def _drop(self, sender: str) -> None:
        """Drop the oldest message of whoever holds most: mostly whoever just sent, which saves looking through all."""
        fair = 2 * (self._bytes + self._messages) / len(self._held)
        greedy = sender if self._held[sender] > fair else max(self._held, key=self._held.__getitem__)
        queue = self._queues[greedy]
        _, payload = queue.popleft()
        if not queue:
            del self._queues[greedy]
        self._count(greedy, -1, -len(payload))
        self._dropped += 1


def sender_of(topic: str) -> str:
    """The device whose topic this is; the broker lets nobody else publish there. Empty for any other topic."""
    parts = topic.split("/", 5)
    return parts[4] if len(parts) == 6 and parts[3] == "d" else ""
