"""The streams being fetched, one for each slot that is in `fetch`: what to listen to, what to ask for again, when it is whole."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from edgeops.parcel.assembly import Progress, place
from edgeops.parcel.stream import StreamList
from edgeops.wire import topics
from edgeops.wire.errors import EdgeopsError, Rejected, Unfit
from edgeops.wire.messages import Want

from ..core.receive import stream_named
from ..core.slot import Done, Event, Failed, Slot, Target

ASK_AGAIN_S, ASK_AT_MOST_S = 2.0, 60.0
CHANNEL = "all"


class Ears(Protocol):
    """Where broadcast frames come from."""

    def subscribe(self, topic: str) -> None:
        """Listen."""

    def unsubscribe(self, topic: str) -> None:
        """The reverse."""


class Fetching(Protocol):
    """The frames of one stream on their way to where objects are kept."""

    progress: Progress

    def feed(self, index: int, data: bytes) -> bool:
        """Take one frame; True when the stream is complete. Raises Rejected("bad-frame") or Unfit."""

    def finish(self) -> object:
        """Keep the whole objects. Raises Rejected, Unfit."""

    def drop(self) -> None:
        """Throw away what was received."""


@dataclass(slots=True)
class Download:
    """A stream being fetched for a slot's target; `asked` is when the missing frames were last asked for."""

    target: Target
    fetch: Fetching
    topic: str
    asked: float = 0.0
    wait: float = ASK_AGAIN_S


class Downloads:
    """All downloads by slot. `fetch` starts one; how it ends goes to `post` as an event of the update machine."""

    def __init__(
        self, fetch: Callable[[str, StreamList], Fetching], ears: Ears, post: Callable[[str, Event], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._fetch, self._ears, self._post, self._now = fetch, ears, post, now
        self._by_slot: dict[str, Download] = {}
        self._late: tuple[str, StreamList] | None = None

    def begin(self, slot: str, target: Target, listed: bytes) -> None:
        """Fetch what the stream list in the envelope `listed` names; ends in Done or Failed."""
        self._forget(slot)
        try:
            stream = stream_named(target.stream, listed)
            stream.check_size(target.most_bytes)
            fetch = self._fetch(target.stream, stream)
        except EdgeopsError as error:
            self._post(slot, Failed("fetch", target.order, int(self._now()), error.reason, error.message))
            return
        download = Download(target, fetch, topics.frames_of(CHANNEL, target.stream))
        self._by_slot[slot] = download
        self._ears.subscribe(download.topic)
        self._see(slot, download)

    def keep(self, slots: Mapping[str, Slot]) -> None:
        """Forget each download that is not what its slot fetches now."""
        for name, download in list(self._by_slot.items()):
            state = slots.get(name, Slot())
            if not (state.phase == "fetch" and state.target and state.target.order == download.target.order):
                self._forget(name)

    def frame(self, stream: str, index: int, data: bytes) -> bool:
        """Take a frame; False when nobody waits for this stream. Raises Rejected("bad-frame")."""
        wanted = {slot: one for slot, one in self._by_slot.items() if one.target.stream == stream}
        for slot, download in wanted.items():
            before = download.fetch.progress
            try:
                download.fetch.feed(index, data)
            except Unfit as error:
                self._fail(slot, download, error)
                continue
            if download.fetch.progress != before:  # what only repeats must not put off asking for the rest
                download.asked, download.wait = self._now(), ASK_AGAIN_S
                self._see(slot, download)
        return bool(wanted)

    def check_late(self, stream: str, index: int, data: bytes, listed: bytes | None) -> None:
        """A frame nobody waits for: raises Rejected unless the stream list in the envelope `listed` names its bytes."""
        if listed is None:
            raise Rejected("unknown-stream", f"frame {index} of a stream no order names")
        if self._late is None or self._late[0] != stream:
            self._late = (stream, stream_named(stream, listed))
        place(Progress(self._late[1]), index, data)

    def wants(self) -> list[Want]:
        """What has to be asked for now, because nothing new came for a while."""
        now, due = self._now(), []
        for download in self._by_slot.values():
            if now - download.asked > download.wait:
                download.wait = min(download.wait * 2, ASK_AT_MOST_S) if download.asked else ASK_AGAIN_S
                download.asked = now
                due.append(Want(download.target.stream, download.fetch.progress.missing()))
        return due

    def ask_soon(self) -> None:
        """After a new connection: ask for what is missing without waiting."""
        for download in self._by_slot.values():
            download.asked = 0.0

    def _see(self, slot: str, download: Download) -> None:
        if not download.fetch.progress.done:
            return
        self._forget(slot)
        try:
            download.fetch.finish()
        except EdgeopsError as error:
            self._fail(slot, download, error)
            return
        self._post(slot, Done("fetch", download.target.order, int(self._now())))

    def _fail(self, slot: str, download: Download, error: EdgeopsError) -> None:
        self._forget(slot)
        download.fetch.drop()
        self._post(slot, Failed("fetch", download.target.order, int(self._now()), error.reason, error.message))

    def _forget(self, slot: str) -> None:
        download = self._by_slot.pop(slot, None)
        if download:
            self._ears.unsubscribe(download.topic)
