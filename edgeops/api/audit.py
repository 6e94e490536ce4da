"""/audit: what people and the manager did, and the checkpoints that hold it."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from edgeops.manager import checkpoints, status
from edgeops.wire.canonical import LIMIT

from .auth import TheHub, Viewer

router = APIRouter(prefix="/audit", tags=["audit"])
Most = Annotated[int, Query(ge=1, le=10_000)]
Number = Annotated[int | None, Query(ge=0, le=LIMIT)]
Word = Annotated[str | None, Query(max_length=256)]


@router.get("")
def entries(
    hub: TheHub, _caller: Viewer, limit: Most = 50, before: Number = None, after: Number = None, since: Number = None,
    who: Word = None, action: Word = None,
) -> dict[str, Any]:  # fmt: skip
    """Entries of the hash-chained audit log, newest last: the newest ones, or with `after` (a number) the first ones after it.

    `before` and `after` are numbers of entries, `since` is Unix seconds. `intact` is about these entries only.
    """
    return status.audited(hub, limit, before=before, after=after, since=since, who=who, action=action)


@router.get("/checkpoints")
def held(hub: TheHub, _caller: Viewer, after: Annotated[int, Query(ge=0, le=LIMIT)] = 0, limit: Most = 1000) -> dict[str, Any]:
    """Signed checkpoints of the audit log for entries after `after`, oldest first, and all roots, whose online keys sign them."""
    return checkpoints.listed(hub, after, limit)
