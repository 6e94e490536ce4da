"""Sending frames: wants are collected for a moment, then what several devices miss is broadcast once, what one misses goes to it.

Nothing here is worth keeping: after a restart devices want again. A frame that is sent satisfies every want that is waiting for it.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import update

from edgeops.parcel.assembly import wanted
from edgeops.store import rows
from edgeops.store.tables import assignments, wishes
from edgeops.store.tables import streams as stream_table
from edgeops.wire import topics
from edgeops.wire.errors import Rejected
from edgeops.wire.messages import Want

from .hub import Hub
from .streams import Stream, frame_bytes, load

_LOG = logging.getLogger("edgeops.deliver")
CHANNEL = "all"
RETRY_S, PATIENCE_S = 0.02, 10.0
# An honest device takes a stream once, and again what was lost; who takes it this often within an hour only wastes the link.
MOST_COPIES, SPARE_FRAMES, HOUR_S = 8, 64, 3600.0
Publish = Callable[[str, bytes, int], bool]


@dataclass(slots=True)
class Waiting:
    """The open wants of one stream: frames by device, and when the first of them came (monotonic seconds)."""

    since: float
    devices: dict[str, set[int]] = field(default_factory=dict)


@dataclass(slots=True)
class Sent:
    """What one round sent."""

    published: int = 0
    repaired: int = 0
    bytes_sent: int = 0


class Delivery:
    """Collects wants and sends frames. `want` may be called from any thread, `run` belongs to one."""

    def __init__(self, hub: Hub, publish: Publish) -> None:
        self._hub, self._publish = hub, publish
        self._lock = threading.Condition()
        self._waiting: dict[str, Waiting] = {}
        self._stopping = threading.Event()
        self._streams: dict[str, Stream] = {}
        self._taken: Counter[tuple[str, str]] = Counter()
        self._taken_since = time.monotonic()

    def want(self, device: str, want: Want) -> None:
        """Note what a device misses; raises Rejected("unknown-stream" | "malformed" | "want-budget")."""
        stream = self._stream(want.stream)
        if stream is None or not self._is_wished(device, want.stream):
            raise Rejected("unknown-stream", f"{device} wants stream {want.stream[:12]}, which it is not to have")
        frames = set(wanted(want.bits, len(stream.list.frames)))
        if not frames:
            return
        with self._lock:
            self._check_budget(device, stream)
            waiting = self._waiting.setdefault(want.stream, Waiting(time.monotonic()))
            waiting.devices[device] = frames
            self._lock.notify()

    def _check_budget(self, device: str, stream: Stream) -> None:
        if time.monotonic() - self._taken_since > HOUR_S:
            self._taken_since = time.monotonic()
            self._taken.clear()
        most = MOST_COPIES * len(stream.list.frames) + SPARE_FRAMES
        if self._taken[device, stream.digest] >= most:
            raise Rejected("want-budget", f"{device} was sent {most} frames of stream {stream.digest[:12]} within an hour")

    def run(self) -> None:
        """Send until stopped."""
        while not self._stopping.is_set():
            stream = self._next()
            if stream is not None:
                try:
                    self._round(stream)
                except Exception:
                    # One broken stream must not end delivery for all others.
                    _LOG.exception("sending stream %s failed", stream)
                    with self._lock:
                        self._waiting.pop(stream, None)

    def stop(self) -> None:
        """Make `run` return soon."""
        self._stopping.set()
        with self._lock:
            self._lock.notify()

    def _next(self) -> str | None:
        """Wait for the stream whose wants have been collected long enough."""
        window = self._hub.settings.want_window_ms / 1000
        with self._lock:
            if not self._waiting:
                self._lock.wait(1.0)
            if not self._waiting:
                return None
            digest, oldest = min(self._waiting.items(), key=lambda item: item[1].since)
            rest = oldest.since + window - time.monotonic()
            if rest <= 0:
                return digest
        self._stopping.wait(rest)
        return None

    def _round(self, digest: str) -> None:
        with self._lock:
            frames = {frame for missing in self._waiting[digest].devices.values() for frame in missing}
        stream, sent = self._stream(digest), Sent()
        pace = 1.0 / self._hub.settings.frames_per_s
        due = time.monotonic()
        for index in sorted(frames):
            takers = self._takers(digest, index)
            if stream is None or not takers:
                continue
            if self._stopping.is_set() or not self._send(stream, index, takers, sent):
                break
            due = max(due + pace, time.monotonic() - pace)
            self._stopping.wait(max(0.0, due - time.monotonic()))
        with self._lock:
            waiting = self._waiting.pop(digest, None)
            left = {} if waiting is None else {device: rest for device, rest in waiting.devices.items() if rest}
            if left and sent.published + sent.repaired:
                self._waiting[digest] = Waiting(time.monotonic(), left)
        self._note(digest, sent)

    def _takers(self, digest: str, index: int) -> list[str]:
        with self._lock:
            return [device for device, missing in self._waiting[digest].devices.items() if index in missing]

    def _send(self, stream: Stream, index: int, takers: list[str], sent: Sent) -> bool:
        body = frame_bytes(self._hub.blobs, stream.list, index)
        if len(takers) == 1:
            head = bytes.fromhex(stream.digest) + index.to_bytes(4, "big")
            done = self._patiently(topics.down(takers[0], "blk"), head + body, 1)
            sent.repaired += done
        else:
            done = self._patiently(topics.frame(CHANNEL, stream.digest, index), body, 0)
            sent.published += done
        sent.bytes_sent += len(body) if done else 0
        with self._lock:
            self._taken.update((taker, stream.digest) for taker in takers)
            # A broadcast serves everyone who waits for it by now, a repair only its one device.
            for device in takers if len(takers) == 1 else list(self._waiting[stream.digest].devices):
                self._waiting[stream.digest].devices.get(device, set()).discard(index)
        return done

    def _patiently(self, topic: str, payload: bytes, qos: int) -> bool:
        give_up = time.monotonic() + PATIENCE_S
        while not self._publish(topic, payload, qos):
            if time.monotonic() > give_up or self._stopping.wait(RETRY_S):
                return False
        return True

    def _stream(self, digest: str) -> Stream | None:
        if digest not in self._streams:
            with self._hub.store.read() as tx:
                found = load(tx, digest)
            if found is None:
                return None
            self._streams[digest] = found
        return self._streams[digest]

    def _is_wished(self, device: str, digest: str) -> bool:
        """Whether the device is to have it, or had it before: what it can go back to may need mending."""
        with self._hub.store.read() as tx:
            now = [row["wish"] for row in rows.find(tx, wishes, device=device)]
            before = [row["before"] for row in rows.find(tx, assignments, device=device) if row["before"]]
        return any(wish.get("stream") == digest for wish in (*now, *before))

    def _note(self, digest: str, sent: Sent) -> None:
        if not sent.published + sent.repaired:
            return
        columns = stream_table.c
        sums = {name: columns[name] + getattr(sent, name) for name in ("published", "repaired", "bytes_sent")}
        with self._hub.store.write() as tx:
            tx.execute(update(stream_table).where(columns.digest == digest).values(**sums))
