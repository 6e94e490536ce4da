"""Socket adapters for amqtt that cannot hang or hoard: bounded packets, bounded waits, back-pressure, forced close."""

import asyncio
import contextlib
from typing import Any

from amqtt.adapters import ReaderAdapter, StreamReaderAdapter, StreamWriterAdapter, WebSocketsWriter
from websockets import ConnectionClosed

MAX_PACKET = 1 << 20
_CLOSE_S = 1.0


class FrameReader(ReaderAdapter):  # type: ignore[misc]
    """The bytes of a WebSocket as a stream; amqtt's own reader reads its last frame twice when the connection ends."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._buffer = bytearray()

    async def readexactly(self, count: int) -> bytes:
        """Exactly `count` bytes; IncompleteReadError at the end of the connection."""
        while len(self._buffer) < count:
            try:
                frame = await self._connection.recv(decode=False)
            except ConnectionClosed:
                raise asyncio.IncompleteReadError(bytes(self._buffer), count) from None
            self._buffer += frame
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def read(self, n: int = -1) -> bytes:
        """The same under the name amqtt calls."""
        return await self.readexactly(n)

    def feed_eof(self) -> None:
        """Nothing is kept back."""


class PacketTooLarge(Exception):
    """A client announced a packet above `MAX_PACKET`; the connection ends."""


class Intake(StreamReaderAdapter):  # type: ignore[misc]
    """Reads for one client. `backlog` (set once the session is known) is what the client sent and we have not yet handled."""

    def __init__(self, reader: "asyncio.StreamReader | FrameReader") -> None:
        super().__init__(reader)
        self.backlog: asyncio.Queue[Any] | None = None
        self.patience_s: float | None = None

    async def read(self, n: int = -1) -> bytes:
        """Read exactly `n` bytes; TimeoutError when the client falls silent, also in the middle of a packet."""
        if n > MAX_PACKET:
            raise PacketTooLarge(f"a packet of {n} bytes")
        async with asyncio.timeout(self.patience_s):
            while self.backlog is not None and self.backlog.full():
                await asyncio.sleep(0.01)
            data: bytes = await super().read(n)
            return data


class Outlet(StreamWriterAdapter):  # type: ignore[misc]
    """Writes for one client; closing never waits long for a peer that does not read."""

    by_password = False

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        super().__init__(writer)
        self.is_closed: bool = False

    async def close(self) -> None:
        """Close within about a second, by force if the peer does not answer."""
        if self.is_closed:
            return
        self.is_closed = True
        writer: asyncio.StreamWriter = self._writer
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                writer.close()
                await writer.wait_closed()
                return
        writer.transport.abort()


class FrameOutlet(WebSocketsWriter):  # type: ignore[misc]
    """Writes for one browser, each packet a frame; the same haste on closing."""

    by_password = True

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self.is_closed = False

    async def drain(self) -> None:
        """Send what was written; a connection that is gone takes nothing."""
        with contextlib.suppress(ConnectionClosed):
            await super().drain()

    async def close(self) -> None:
        """Close within about a second, by force if the browser does not answer."""
        if self.is_closed:
            return
        self.is_closed = True
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._protocol.close()
                return
        self._protocol.transport.abort()
