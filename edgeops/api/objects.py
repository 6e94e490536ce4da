"""/objects: content-addressed bytes. Uploading needs an operator, reading any API token."""

import re
import tempfile
from collections.abc import Iterator
from typing import IO

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from edgeops.store import roomy
from edgeops.store.blobs import CHUNK
from edgeops.wire.errors import Misuse

from .auth import Operator, TheHub, Viewer

router = APIRouter(prefix="/objects", tags=["objects"])
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
MEDIA = "application/octet-stream"
BYTES = {"description": "The bytes of the object.", "content": {MEDIA: {}}, "required": True}


@router.put("/{digest}", status_code=201, openapi_extra={"requestBody": BYTES})
async def put(hub: TheHub, _caller: Operator, digest: str, request: Request) -> dict[str, object]:
    """Store the body under its SHA-256; what hashes to something else is refused."""
    limit = hub.settings.max_object_bytes
    hub.blobs.path(digest)
    announced = request.headers.get("content-length", "0")
    if announced.isascii() and announced.isdigit() and int(announced) > limit:
        raise Misuse("too-large", f"an object has at most {limit} bytes, this one {announced}")
    # Beside the objects: the folder of temporary files may be small, and is not what fills up.
    with roomy(), tempfile.TemporaryFile(dir=hub.blobs.folder) as spool:
        async for chunk in request.stream():
            await run_in_threadpool(spool.write, chunk)
            if spool.tell() > limit:
                raise Misuse("too-large", f"an object has at most {limit} bytes")
        size = await run_in_threadpool(lambda: hub.blobs.put(digest, _chunks(spool), limit))
    return {"sha256": digest, "size": size}


@router.head("/{digest}")
def head(hub: TheHub, _caller: Viewer, digest: str) -> Response:
    """Whether an object is here, and its size."""
    size = _size(hub, digest)
    return Response(headers={"content-length": str(size), "accept-ranges": "bytes", "etag": f'"{digest}"'}, media_type=MEDIA)


@router.get("/{digest}", response_class=StreamingResponse)
def get(hub: TheHub, _caller: Viewer, digest: str, request: Request) -> Response:
    """The bytes of an object, or one range of them."""
    size = _size(hub, digest)
    headers = {"accept-ranges": "bytes", "etag": f'"{digest}"'}
    span = _range(request.headers.get("range"), size)
    start, end = span or (0, size)
    headers["content-length"] = str(end - start)
    if span:
        headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
    return StreamingResponse(hub.blobs.chunks(digest, start, end - start), 206 if span else 200, headers, MEDIA)


def _size(hub: TheHub, digest: str) -> int:
    size = hub.blobs.size(digest)
    if size is None:
        raise Misuse("unknown-object", f"there is no object {digest}; upload it first")
    return size


def _range(header: str | None, size: int) -> tuple[int, int] | None:
    """(start, end) of a single byte range; None for none or one we do not know, which RFC 9110 lets us ignore."""
    match = RANGE.fullmatch(header.strip()) if header else None
    if match is None or match[1] + match[2] == "":
        return None
    if match[1]:
        start, end = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
    else:
        start, end = max(0, size - int(match[2])), size
    if start >= end:
        raise Misuse("bad-range", f"range {header!r} lies outside the {size} bytes of the object")
    return start, end


def _chunks(spool: IO[bytes]) -> Iterator[bytes]:
    spool.seek(0)
    while chunk := spool.read(CHUNK):
        yield chunk
