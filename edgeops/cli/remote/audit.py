"""edgeops audit show|export: the hash-chained log of who did what, page by page or whole."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeops.wire.errors import Misuse, Unreachable

from .. import show
from ..client import Client, items
from ..frame import Run

PAGE = 5000
ENTRIES, CHECKPOINTS, DOCUMENTS = "entries.jsonl", "checkpoints.jsonl", "documents"
Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="Not before this: 2026-01-31, 2026-01-31T12:00 (UTC) or Unix seconds.")
]
Before = Annotated[int | None, typer.Option(min=1, metavar="NUMBER", help="Only entries before this one: the next page.")]
Who = Annotated[str | None, typer.Option("--who", metavar="NAME", help="Only what this token or part of the manager did.")]
Action = Annotated[str | None, typer.Option("--action", metavar="WORD", help="Only deeds of this kind, e.g. device-revoke.")]


def show_(
    run: Run,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most this many entries, newest last.")] = 50,
    before: Before = None,
    since: Since = None,
    who: Who = None,
    action: Action = None,
) -> int:
    """Show the audit log: who did what to what, when. Exit 1 when an entry shown does not fit; `audit verify` looks at all.

    Example: edgeops audit show --who anna --since 2026-01-31
    """
    answer = run.client().get("/audit", limit=limit, before=before, since=_seconds(since), who=who, action=action)
    found, names = items(answer, "audit"), ("who", "action", "subject", "detail")
    rows = [(entry.get("number"), show.when(entry.get("at")), *(entry.get(name) for name in names)) for entry in found]
    run.emit(answer, lambda: show.print_table(("no", "at", *names), rows))
    if len(found) == limit and not run.json and int(found[0].get("number") or 1) > 1:
        run.note(f"older ones: --before {found[0].get('number')}")
    if answer.get("intact") is False:
        run.note(f"entry {answer.get('broken_at')} was changed, or one beside it; `edgeops audit verify` says more")
        return 1
    return 0


def export(
    run: Run, folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder: entries, checkpoints and roots go there.")]
) -> None:
    """Take the whole audit log elsewhere, as JSON lines, with all that `edgeops audit verify --folder DIR` needs.

    Example: edgeops audit export ./evidence-2026-01
    """
    if folder.exists():
        raise Misuse("folder-in-use", f"{folder} exists; evidence is never overwritten, give a new folder")
    client, count = run.client(), 0
    signed, roots = checkpoints(client)
    (folder / DOCUMENTS).mkdir(parents=True)
    for version, root in enumerate(roots, 1):
        (folder / DOCUMENTS / f"root-{version}.json").write_bytes(root)
    (folder / CHECKPOINTS).write_bytes(b"".join(line + b"\n" for line in signed))
    with (folder / ENTRIES).open("w", encoding="utf-8") as out:
        for entry in entries(client):
            out.write(json.dumps(entry, ensure_ascii=False) + "\n")
            count += 1
    data = {"folder": str(folder), "entries": count, "checkpoints": len(signed)}
    text = f"{count} entries and {len(signed)} checkpoints are in {folder}; next: `edgeops audit verify --folder {folder}`"
    run.emit(data, text)


def entries(client: Client) -> Iterator[dict[str, Any]]:
    """Every entry of the log, first to last, page by page."""
    after = 0
    while found := items(client.get("/audit", after=after, limit=PAGE), "audit"):
        yield from found
        if not isinstance(newest := found[-1].get("number"), int) or newest <= after:
            raise Unreachable("not-a-manager", "the manager's pages of the audit log do not go on; is it another version?")
        after = newest


def checkpoints(client: Client) -> tuple[list[bytes], list[bytes]]:
    """The envelopes of all checkpoints, oldest first, and of all roots."""
    found: list[bytes] = []
    after, roots = 0, list[bytes]()
    while True:
        answer = client.get("/audit/checkpoints", after=after, limit=PAGE)
        rows = items(answer, "checkpoints")
        roots = [str(root).encode() for root in answer.get("roots", ())]
        found += [str(row["envelope"]).encode() for row in rows]
        if len(rows) < PAGE:
            return found, roots
        after = int(rows[-1]["entry"])


def _seconds(text: str | None) -> int | None:
    if text is None or re.fullmatch(r"[0-9]{1,12}", text):
        return None if text is None else int(text)
    try:
        return int(datetime.fromisoformat(text).replace(tzinfo=datetime.fromisoformat(text).tzinfo or UTC).timestamp())
    except (ValueError, OverflowError):
        raise Misuse("bad-time", f"{text!r} is no time; write 2026-01-31, 2026-01-31T12:00 or seconds since 1970") from None
