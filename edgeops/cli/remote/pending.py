"""edgeops device pending|approve|reject: an operator's word on devices that want in, or come back very late.

A word is said on what was shown: each device goes to the manager with the fingerprint seen here, and if it waits with another key
by then, nothing is done.
"""

from typing import Annotated, Any

import typer

from edgeops.wire.errors import Misuse

from .. import show
from ..client import items
from ..frame import Run
from .devices import Yes, confirm

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID…", help="The devices meant.")]
Matching = Annotated[str | None, typer.Option("--selector", metavar="SELECTOR", help="All who wait and match, e.g. site=berlin.")]
Everyone = Annotated[bool, typer.Option("--all", help="All who wait.")]
Fingerprint = Annotated[
    str | None, typer.Option("--fingerprint", metavar="HEX", help="What the device itself says, of one ID; then nothing is asked.")
]
NOBODY = "nobody waits for approval"


def pending(run: Run) -> None:
    """List devices that wait for approval: id, why (enrol or renew), fingerprint of the identity key, since when.

    Example: edgeops device pending
    """
    found = items(run.client().get("/pending"), "pending")
    run.emit({"pending": found}, lambda: _draw(found))


def approve(
    run: Run, ids: Ids = None, selector: Matching = None, everyone: Everyone = False, fingerprint: Fingerprint = None,
    yes: Yes = False,
) -> None:  # fmt: skip
    """Approve devices that wait, as they are shown. Compare the fingerprint with what `edgeops-agent identity` says on the device.

    Example: edgeops device approve pi-01 pi-02
    """
    chosen = meant(run, "Approve", ids or [], _matching(selector, everyone), fingerprint, yes)
    data = run.client().post("/pending/approve", {"devices": chosen})
    run.emit(data, lambda: _told("approved", data["approved"]))


def reject(
    run: Run, ids: Ids = None, selector: Matching = None, everyone: Everyone = False, fingerprint: Fingerprint = None,
    yes: Yes = False,
) -> None:  # fmt: skip
    """Turn devices away that wait, as they are shown; they need a new token to try again.

    Example: edgeops device reject pi-03
    """
    chosen = meant(run, "Reject", ids or [], _matching(selector, everyone), fingerprint, yes)
    data = run.client().post("/pending/reject", {"devices": chosen})
    run.emit(data, lambda: _told("rejected", data["rejected"]))


def _matching(selector: str | None, everyone: bool) -> str | None:
    if everyone and selector is not None:
        raise Misuse("ids-or-selector", "give --selector or --all, not both")
    return "all" if everyone else selector


def meant(run: Run, verb: str, ids: list[str], selector: str | None, fingerprint: str | None, yes: bool) -> dict[str, str]:
    """Who is meant, by id, with the fingerprint that was shown (and confirmed) or named.

    Raises Misuse("ids-or-selector") unless it was said in exactly one way, Misuse("nothing-pending" | "not-confirmed").
    """
    if bool(ids) == (selector is not None) or (fingerprint is not None and len(ids) != 1):
        raise Misuse("ids-or-selector", "name the devices (one with --fingerprint), or give --selector, or --all; one of the three")
    if fingerprint is not None:
        return {ids[0]: fingerprint}
    found = items(run.client().get("/pending", selector=selector), "pending")
    found = [one for one in found if not ids or one["id"] in ids]
    if missing := sorted(set(ids) - {one["id"] for one in found}) or ([] if found else ["who is meant"]):
        raise Misuse("nothing-pending", f"{missing[0]} does not wait for approval; `edgeops device pending` shows who does")
    run.show(lambda: _draw(found))
    confirm(run, "them", yes, f"{verb} {'this device' if len(found) == 1 else f'these {len(found)} devices'}?")
    return {one["id"]: one["fingerprint"] for one in found}


def _draw(found: list[dict[str, Any]]) -> None:
    columns = ("id", "kind", "fingerprint", "since", "labels")
    rows = [(*map(one.get, columns[:3]), show.when(one.get("since")), one.get("labels")) for one in found]
    show.print_table(columns, rows, NOBODY)


def _told(verb: str, found: list[dict[str, Any]]) -> None:
    for one in found:
        print(f"{verb} {one['id']} ({one['kind']}, identity {one['fingerprint']})")
