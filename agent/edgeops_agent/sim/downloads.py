"""The streams one straw is fetching: wants out, frames in, objects put together. What became of it goes to the core as an event."""

from collections.abc import Callable
from dataclasses import dataclass

from edgeops.parcel.assembly import Progress, place
from edgeops.parcel.stream import StreamList
from edgeops.wire import canonical, envelope, topics
from edgeops.wire.errors import EdgeopsError, Rejected, Unfit
from edgeops.wire.fields import Fields
from edgeops.wire.keys import sha256
from edgeops.wire.messages import Want

from ..core.slot import Done, Event, Failed, Target
from . import kept
from .ports import Ports

ASK_AGAIN_S, ASK_AT_MOST_S = 2.0, 60.0
RECENT_STREAMS = 4


@dataclass(slots=True)
class Download:
    """A stream being fetched for a slot's target; it is asked for at `ask_at`, then after ever longer waits."""

    target: Target
    progress: Progress
    ask_at: float
    wait: float = ASK_AGAIN_S


class Downloads:
    """At most one stream per slot. `post` takes events for the core."""

    def __init__(self, ports: Ports, post: Callable[[str, Event], None]) -> None:
        self._ports, self._post = ports, post
        self._open: dict[str, Download] = {}
        self._lists: dict[str, StreamList] = {}

    @property
    def frames(self) -> set[str]:
        """Digests of all frames that are being waited for or kept until a stream is whole."""
        return {digest for download in self._open.values() for digest in download.progress.stream.frames}

    def start(self, slot: str, target: Target) -> None:
        """Fetch what the target's stream holds, or say at once that it cannot be."""
        self.stop(slot)
        try:
            progress = kept.begin(self._ports.kept, self._list(target.stream))
        except EdgeopsError as error:
            self._fail(slot, target, error, isinstance(error, Unfit))
            return
        self._open[slot] = Download(target, progress, self._ports.monotonic())
        self._ports.transport.subscribe(topics.frames_of("all", target.stream))
        self._finish(slot)

    def stop(self, slot: str) -> None:
        """Nothing is fetched for this slot any more."""
        download = self._open.pop(slot, None)
        if download and all(other.target.stream != download.target.stream for other in self._open.values()):
            self._ports.transport.unsubscribe(topics.frames_of("all", download.target.stream))

    def ask_now(self) -> None:
        """After a connect: whatever was asked before may be lost."""
        for download in self._open.values():
            download.ask_at = self._ports.monotonic()

    def wants(self) -> list[Want]:
        """The wants that are due."""
        now, due = self._ports.monotonic(), []
        for download in self._open.values():
            if now >= download.ask_at:
                due.append(Want(download.target.stream, download.progress.missing()))
                download.ask_at, download.wait = now + download.wait, min(download.wait * 2, ASK_AT_MOST_S)
        return due

    def take(self, stream: str, index: int, data: bytes) -> None:
        """A frame came in; raises Rejected when its bytes are not those a signed list names."""
        waiting = [slot for slot, download in self._open.items() if download.target.stream == stream]
        if not waiting:
            self._stray(stream, index, data)
        for slot in waiting:
            self._feed(slot, index, data)

    def _feed(self, slot: str, index: int, data: bytes) -> None:
        download = self._open[slot]
        try:
            download.progress = kept.feed(self._ports.kept, download.progress, index, data)
        except Unfit as error:
            self.stop(slot)
            self._fail(slot, download.target, error)
            return
        download.ask_at, download.wait = self._ports.monotonic() + ASK_AGAIN_S, ASK_AGAIN_S
        self._finish(slot)

    def _stray(self, stream: str, index: int, data: bytes) -> None:
        """A frame nobody waits for: late if a stream list we know names its bytes, else an intruder's."""
        if stream not in self._lists:
            raise Rejected("unknown-stream", f"frame {index} of a stream no order names")
        place(Progress(self._lists[stream]), index, data)

    def _finish(self, slot: str) -> None:
        download = self._open[slot]
        if not download.progress.done:
            return
        self.stop(slot)
        try:
            kept.finish(self._ports.kept, download.progress.stream)
        except EdgeopsError as error:
            self._fail(slot, download.target, error)
        else:
            self._post(slot, Done("fetch", download.target.order, int(self._ports.monotonic())))

    def _fail(self, slot: str, target: Target, error: EdgeopsError, unfit: bool = False) -> None:
        now = int(self._ports.monotonic())
        self._post(slot, Failed("fetch", target.order, now, error.reason, error.message, unfit))

    def _list(self, digest: str) -> StreamList:
        """A kept stream list, believed because its payload has the digest our own record names; raises Rejected."""
        if digest not in self._lists:
            body, _ = envelope.split(self._ports.kept.document(digest), "stream")
            if sha256(body) != digest:
                raise Rejected("bad-document", f"the kept stream list {digest[:12]} is damaged")
            self._lists[digest] = StreamList.parse(Fields.of(canonical.decode(body, "stream"), "stream"))
            for old in list(self._lists)[:-RECENT_STREAMS]:
                del self._lists[old]
        return self._lists[digest]
