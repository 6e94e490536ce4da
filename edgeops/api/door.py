"""The door: who calls is settled before a byte of the body is read, and nobody may send more than anybody has reason to."""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgeops.manager import tokens
from edgeops.manager.hub import Hub
from edgeops.manager.tokens import Caller
from edgeops.wire.errors import EdgeopsError, Misuse, Unfit

from . import problems
from .limits import Limiter, TooMany, neighbourhood

if TYPE_CHECKING:
    # Needs the extra `oidc`.
    from .oidc import Bearers

_LOG = logging.getLogger("edgeops.api")
# A release envelope of the largest size, escaped into a JSON string. Objects have their own, larger limit.
MOST_BYTES = 4 << 20
MOST_FROM_STRANGERS = 16 << 10
WRONG, SPAN_S = 100, 60.0
OBJECTS = "/objects/"
# How the base64 of `{"` begins, and with it every JWT.
JWT = "ey"


class Door:
    """Refuses callers without a good token (but on `open_paths`, and to read `open_reads`) and bodies nobody has reason to send."""

    def __init__(
        self, app: ASGIApp, open_paths: tuple[str, ...], open_reads: tuple[str, ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._app, self._open, self._reads, self._clock = app, open_paths, open_reads, clock
        self._wrong = Limiter(WRONG, SPAN_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it with a problem document."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        try:
            stranger = scope["path"] in self._open or (scope["method"] == "GET" and scope["path"] in self._reads)
            if not stranger:
                scope.setdefault("state", {})["caller"] = await run_in_threadpool(self._caller, scope, headers)
            if OBJECTS not in scope["path"]:
                receive = bounded(receive, headers, MOST_FROM_STRANGERS if stranger else MOST_BYTES)
        except EdgeopsError as error:
            await problems.of_error(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _caller(self, scope: Scope, headers: dict[bytes, bytes]) -> Caller:
        """Who calls. Only what is wrong is counted: a neighbour's nonsense keeps nobody with a good token out."""
        try:
            return identify(scope["app"].state.hub, headers.get(b"authorization", b""), scope["app"].state.bearers)
        except Misuse as error:
            if error.reason == "token-missing":
                raise
            address = neighbourhood((scope.get("client") or ("", 0))[0])
            try:
                self._wrong.take(address, self._clock())
            except TooMany as many:
                _LOG.info("too many wrong tokens from %s", address)
                raise many from None
            raise


def identify(hub: Hub, header: bytes, bearers: "Bearers | None" = None) -> Caller:
    """Who presents this Authorization header; raises Misuse("token-missing" | "token-unknown" | … | "oidc-…"), Unreachable."""
    scheme, _, rest = header.decode("latin-1").partition(" ")
    text, now = rest.strip(), hub.now()
    if scheme.lower() != "bearer" or not text:
        raise Misuse("token-missing", "this needs an API token in `Authorization: Bearer …`")
    if bearers and text.startswith(JWT) and text.count(".") == 2:
        return bearers.caller(text, now)
    with hub.store.read() as tx:
        found, stale = tokens.check(tx, text, now)
    if stale:
        try:
            with hub.store.write() as tx:
                tokens.touch(tx, found.name, now)
        except Unfit as error:
            # Looking must work on a full disk too: it is how people find out.
            _LOG.warning("the last use of token %s was not noted: %s", found.name, error)
    return found


def bounded(receive: Receive, headers: dict[bytes, bytes], most: int) -> Receive:
    """`receive`, ending with 413 once more than `most` bytes came; raises Misuse when they are announced."""
    announced = headers.get(b"content-length", b"0")
    if announced.isdigit() and int(announced[:20]) > most:
        raise problems.too_large(most)
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > most:
            # Not one of our own errors: FastAPI would call it a body that cannot be parsed.
            raise HTTPException(413, problems.too_large(most).message)
        return message

    return counted
