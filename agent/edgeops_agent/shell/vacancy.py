"""Who answers on the local endpoint while no model runs: the supervisor itself, alive but not ready."""

import threading
from collections.abc import Sequence
from socket import socket

from edgeops.wire.errors import Unfit

from .http import HttpServer, Response
from .reading import HttpLimits, Request
from .replies import SERVER, json_reply, refuse

LIMITS = HttpLimits(connections=16, body_bytes=4 << 20, bodies_bytes=8 << 20)


class Vacancy:
    """Serves the listening `sockets` while no slot is taken; the `expected` ones soon will be. Safe for several threads."""

    def __init__(self, sockets: Sequence[socket], expected: Sequence[str] = ()) -> None:
        self._sockets = sockets
        self._taken = set(expected)
        self._server: HttpServer | None = None
        self._changing = threading.Lock()

    def take(self, slot: str) -> None:
        """A worker of `slot` accepts connections now."""
        with self._changing:
            self._taken.add(slot)
            self._close()

    def leave(self, slot: str) -> None:
        """Nothing of `slot` runs, and nothing will soon."""
        with self._changing:
            self._taken.discard(slot)
            if not self._taken and self._server is None:
                server = HttpServer(_answer, refuse, LIMITS)
                server.listen(self._sockets)
                self._server = server  # one that found no thread is tried again

    def close(self) -> None:
        """Stop answering."""
        with self._changing:
            self._close()

    def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.drain(None, 0)


def _answer(request: Request) -> Response:
    path = request.path.partition("?")[0]
    if request.method == "GET" and path == "/v2/health/live":
        return json_reply(200, {"live": True})
    if request.method == "GET" and path in ("/v2", "/v2/"):
        return json_reply(200, SERVER)
    if path == "/v2/health/ready":
        return json_reply(503, {"ready": False})
    if path == "/v2/repository/index":
        return json_reply(200, [])
    raise Unfit("no-model", "no model runs on this device yet; see `edgeops-agent status`")
