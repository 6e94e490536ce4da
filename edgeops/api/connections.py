"""Connections that keep us waiting: nobody holds one open without asking something, and no answer leaves without its manners."""

import asyncio
from typing import Any

from starlette.types import Message, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 20.0
# All we answer is data for programs: nothing in it is to be run, framed, guessed at or kept.
MANNERS = (
    (b"x-content-type-options", b"nosniff"), (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"), (b"referrer-policy", b"no-referrer"), (b"cache-control", b"no-store"),
)  # fmt: skip


class Patient(H11Protocol):
    """HTTP/1.1 that ends a connection whose next request has no whole head after `HEAD_S`: uvicorn would wait for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._look = self.loop.call_later(HEAD_S, self._still_waiting)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._look.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._since = self.loop.time()
        super().on_response_complete()

    def _still_waiting(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        left = HEAD_S if answering else self._since + HEAD_S - self.loop.time()
        if left > 0:
            self._look = self.loop.call_later(left, self._still_waiting)
        else:
            self.transport.close()


def mannerly(send: Send) -> Send:
    """`send`, adding to each answer the headers it has not set itself."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            given: list[Any] = list(message.get("headers", ()))
            names = {name.lower() for name, _ in given}
            message = {**message, "headers": [*given, *((name, value) for name, value in MANNERS if name not in names)]}
        await send(message)

    return sent
