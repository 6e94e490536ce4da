"""What systemd (or whoever started us and listens at NOTIFY_SOCKET) is told: ready, still turning, stopping. See sd_notify(3)."""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping

MOST_DIGITS = 20  # of a number of 64 bits


class Lifeline:
    """Says that the agent is up and that its loop turns; silent where nobody asked. Whoever hears nothing for too long kills us."""

    def __init__(self, environment: Mapping[str, str] = os.environ, now: Callable[[], float] = time.monotonic) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        asked = environment.get("WATCHDOG_USEC", "")
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._every = int(asked) / 4e6 if asked.isascii() and asked.isdigit() and len(asked) <= MOST_DIGITS and ours else 0.0
        self._now, self._due = now, 0.0

    def ready(self) -> None:
        """We serve. Say it once."""
        self._tell("READY=1")

    def beat(self) -> None:
        """The loop has come round. Call it each time; it is said four times in the span after which we would be given up."""
        if self._every and self._now() >= self._due:
            self._due = self._now() + self._every
            self._tell("WATCHDOG=1")

    def stopping(self) -> None:
        """We end because we were asked to."""
        self._tell("STOPPING=1")

    def _tell(self, state: str) -> None:
        """One datagram; a listener that is gone or does not read must not stop a device."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(state.encode(), self._address)
