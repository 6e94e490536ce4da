"""edgeops device pending|approve|reject: an operator's word on devices that want in, or come back very late."""

from typing import Annotated, Any

import typer

from edgeops.wire.errors import Misuse

from .. import show
from ..client import items
from ..frame import Run

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID…", help="The devices meant.")]
Matching = Annotated[str | None, typer.Option("--selector", metavar="SELECTOR", help="All who wait and match, e.g. site=berlin.")]
Everyone = Annotated[bool, typer.Option("--all", help="All who wait.")]


def pending(run: Run) -> None:
    """List devices that wait for approval: id, why (enrol or renew), fingerprint of the identity key, since when.

    Example: edgeops device pending
    """
    found = items(run.client().get("/pending"), "pending")
    columns = ("id", "kind", "fingerprint", "since", "labels")
    rows = [(*map(one.get, columns[:3]), show.when(one.get("since")), one.get("labels")) for one in found]
    run.emit({"pending": found}, lambda: show.print_table(columns, rows, "nobody waits for approval"))


def approve(run: Run, ids: Ids = None, selector: Matching = None, everyone: Everyone = False) -> None:
    """Approve devices that wait. Compare the fingerprint with what `edgeops-agent identity` says on the device first.

    Example: edgeops device approve pi-01 pi-02
    """
    data = run.client().post("/pending/approve", meant(ids, selector, everyone))
    run.emit(data, lambda: _told("approved", data["approved"]))


def reject(run: Run, ids: Ids = None, selector: Matching = None, everyone: Everyone = False) -> None:
    """Turn devices away that wait; they need a new token to try again.

    Example: edgeops device reject pi-03
    """
    data = run.client().post("/pending/reject", meant(ids, selector, everyone))
    run.emit(data, lambda: _told("rejected", data["rejected"]))


def meant(ids: list[str] | None, selector: str | None, everyone: bool) -> dict[str, Any]:
    """Who is meant, as the API wants it; raises Misuse("ids-or-selector") unless it was said in exactly one way."""
    if (bool(ids) + (selector is not None) + everyone) != 1:
        raise Misuse("ids-or-selector", "name the devices, or give --selector, or --all; one of the three")
    return {"ids": ids} if ids else {"selector": "all" if everyone else selector}


def _told(verb: str, found: list[dict[str, Any]]) -> None:
    for one in found:
        print(f"{verb} {one['id']} ({one['kind']}, identity {one['fingerprint']})")
