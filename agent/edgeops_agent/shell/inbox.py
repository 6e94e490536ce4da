"""What other threads bring to the supervisor. The agent's own events always get in and go first; messages only while they fit."""

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

MAX_BYTES = 16 << 20
MAX_MESSAGES = 4096


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the broker, not yet believed."""

    topic: str
    data: bytes


class Inbox:
    """Bounded by bytes and by number, so that no flood eats the memory or drowns what the agent's own threads say."""

    def __init__(self, most_bytes: int = MAX_BYTES) -> None:
        self._most = most_bytes
        self._changed = threading.Condition()
        self._events: deque[Any] = deque()
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self.dropped = 0
        self.missed = False

    def put(self, event: Any) -> None:
        """An event of the agent itself."""
        with self._changed:
            self._events.append(event)
            self._changed.notify()

    def offer(self, message: Message) -> None:
        """A message; dropped and counted when there is no room. Then `missed` says it must be asked for (frames always are)."""
        with self._changed:
            if len(self._messages) >= MAX_MESSAGES or self._bytes + len(message.data) > self._most:
                self.dropped += 1
                self.missed |= message.topic.endswith(("/desired", "/doc", "/cmd"))
                return
            self._messages.append(message)
            self._bytes += len(message.data)
            self._changed.notify()

    def take(self, seconds: float) -> Any:
        """The next event or Message, None when there is none within `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self._events or self._messages, seconds)
            if self._events:
                return self._events.popleft()
            if not self._messages:
                return None
            message = self._messages.popleft()
            self._bytes -= len(message.data)
            return message
