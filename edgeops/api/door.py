"""The door: who calls is settled before a byte of the body is read, and nobody may send more than anybody has reason to."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgeops.manager import tokens
from edgeops.manager.hub import Hub
from edgeops.manager.tokens import Caller
from edgeops.wire.errors import EdgeopsError, Misuse, Unfit

from . import problems
from .connections import mannerly
from .limits import Limiter, TooMany, neighbourhood

if TYPE_CHECKING:
    # Needs the extra `oidc`.
    from .oidc import Bearers

_LOG = logging.getLogger("edgeops.api")
# A release envelope of the largest size, escaped into a JSON string. Objects have their own, larger limit.
MOST_BYTES = 4 << 20
MOST_FROM_STRANGERS = 16 << 10
WRONG, SPAN_S = 100, 60.0
PREFIX = "/api/v1"
OBJECTS = f"{PREFIX}/objects/"
# How long we wait for the next piece of a body; strangers have as long for all of it.
STRANGERS_S, CALLERS_S = 15.0, 60.0
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
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            # There is no other way in.
            return
        headers, send = dict(scope["headers"]), mannerly(send)
        if _ambiguous(scope["headers"]):
            await _two_meanings()(scope, receive, send)
            return
        try:
            stranger = scope["path"] in self._open or (scope["method"] == "GET" and scope["path"] in self._reads)
            if not stranger:
                scope.setdefault("state", {})["caller"] = await run_in_threadpool(self._caller, scope, headers)
            most = MOST_FROM_STRANGERS if stranger else None if scope["path"].startswith(OBJECTS) else MOST_BYTES
            receive = bounded(prompt(receive, stranger), headers, most)
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


def _ambiguous(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether two programs in a row might disagree on who asks, or on where the request ends."""
    names = [name for name, _ in headers]
    return names.count(b"authorization") > 1 or (b"content-length" in names and b"transfer-encoding" in names)


def _two_meanings() -> Response:
    answer = problems.of_error(Misuse("ambiguous-request", "the request has more than one Authorization, or two lengths; send one"))
    answer.headers["connection"] = "close"  # what comes next on this connection might be part of it
    return answer


def prompt(receive: Receive, stranger: bool) -> Receive:
    """`receive`, ending with 408 where the body does not go on, or, of a stranger, is not there as a whole in time."""
    deadline, whole = time.monotonic() + STRANGERS_S, False

    async def awaited() -> Message:
        nonlocal whole
        if whole:
            # Only the end of the connection is left, and nobody is late for that.
            return await receive()
        left = deadline - time.monotonic() if stranger else CALLERS_S
        try:
            message = await asyncio.wait_for(receive(), max(left, 0.0))
        except TimeoutError:
            raise HTTPException(408, "the body of the request did not come in time; ask again") from None
        whole = not message.get("more_body", False)
        return message

    return awaited


def bounded(receive: Receive, headers: dict[bytes, bytes], most: int | None) -> Receive:
    """`receive`, ending with 413 once more than `most` bytes came; raises Misuse when they are announced."""
    if most is None:
        return receive
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
