"""edgeops audit verify: the audit log against itself, against its signed checkpoints, and against the root one trusts."""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeops.manager.layout import Layout
from edgeops.wire.chain import Finding, Verdict, check_chain, read_checkpoints, root_chain
from edgeops.wire.errors import Rejected

from .. import show
from ..frame import Run
from ..remote.audit import CHECKPOINTS, ENTRIES, checkpoints, entries

Kept = Annotated[
    list[Path] | None,
    typer.Option("--checkpoints", metavar="FILE", help="Checkpoints kept elsewhere: jsonl, or a log; repeat for more."),
]
Folder = Annotated[
    Path | None, typer.Option("--folder", metavar="DIR", help="Work offline on a manager's folder, a copy of it, or an export.")
]
Pin = Annotated[str | None, typer.Option("--root-pin", metavar="HEX", help="The digest of the first root, as you noted it.")]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is checked: entries in order, checkpoints by source, roots. `sent`: the entry of the last one put in the file."""

    entries: Iterable[dict[str, Any]]
    checkpoints: dict[str, list[bytes]]
    roots: list[bytes]
    sent: int = 0


def verify(run: Run, kept: Kept = None, folder: Folder = None, root_pin: Pin = None) -> int:
    """Check the whole audit log and name the first bad entry: exit 0 when all is well, 1 when it was tampered with.

    Example: edgeops audit verify --checkpoints /mnt/elsewhere/checkpoints.jsonl
    """
    with ExitStack() as opened:
        evidence = _remote(run) if folder is None else _local(folder, opened)
        for path in kept or ():
            evidence.checkpoints[str(path)] = _lines(path)
        data = judge(evidence, root_pin)
    run.emit(data, lambda: _draw(data))
    return 1 if data["findings"] else 0


def judge(evidence: Evidence, pin: str | None) -> dict[str, Any]:
    """All that is wrong with the evidence, and how far it is covered."""
    fleet, keys, first = root_chain(evidence.roots, None)
    if pin is not None and first != pin:
        text = f"the first root here has the digest {first}, --root-pin says {pin[:64]}: the pin was copied wrong, this is another"
        raise Rejected("root-pin", f"{text} fleet's log, or somebody has replaced the roots; compare with the pin you noted")
    found: list[Finding] = []
    signed, ends = [], {}
    for name, lines in evidence.checkpoints.items():
        good, problem = read_checkpoints(lines, fleet, keys, name)
        signed += good
        ends[name] = good[-1].entry if good else 0
        found += [problem] if problem else []
    if evidence.sent and ends.get(CHECKPOINTS, evidence.sent) < evidence.sent:
        text = f"{CHECKPOINTS} ends with the checkpoint of entry {ends[CHECKPOINTS]}; the one of {evidence.sent} was there too"
        found.append(Finding("checkpoint-missing", 0, text))
    verdict: Verdict = check_chain(evidence.entries, signed)
    found += [verdict.finding] if verdict.finding else []
    return {
        "ok": not found, "fleet": fleet, "root_pin": first, "pinned": pin is not None, "entries": verdict.entries,
        "head": verdict.head, "checkpoints": len({one.id for one in signed}), "covered": verdict.covered,
        "findings": [asdict(one) for one in found],
    }  # fmt: skip


def _draw(data: dict[str, Any]) -> None:
    show.pairs({name: data[name] for name in ("fleet", "entries", "checkpoints", "covered", "head", "root_pin")})
    for finding in data["findings"]:
        print(f"BAD: {show.safe(finding['text'])} [{finding['reason']}]")
    if data["ok"]:
        print(f"ok: {data['entries']} entries hang together; up to entry {data['covered']} a signed checkpoint says so")
    if not data["pinned"]:
        print("the first root was believed as found; with --root-pin and the pin you noted it need not be")


def _remote(run: Run) -> Evidence:
    client = run.client()
    signed, roots = checkpoints(client)
    return Evidence(entries(client), {"the manager's checkpoints": signed}, roots)


def _local(folder: Path, opened: ExitStack) -> Evidence:
    layout = Layout(folder)
    roots = [path.read_bytes() for path in layout.all_of("root")]
    if (folder / ENTRIES).is_file():
        held = {CHECKPOINTS: _lines(folder / CHECKPOINTS)} if (folder / CHECKPOINTS).is_file() else {}
        return Evidence(_jsonl(folder / ENTRIES), held, roots)
    from edgeops.manager.checkpoints import sent_until
    from edgeops.store import audit, peek

    # The file first: a manager at work writes the table before it.
    held = {CHECKPOINTS: _lines(layout.checkpoints)} if layout.checkpoints.is_file() else {}
    store = peek(layout.database)
    opened.callback(store.close)
    tx = opened.enter_context(store.read())
    held["the database's checkpoints"] = [sealed for _, sealed in audit.checkpoints_after(tx, 0, 1 << 40)]
    return Evidence(audit.walk(tx), held, roots, sent_until(tx))


def _lines(path: Path) -> list[bytes]:
    """Lines that hold a document; a log may hold others."""
    return [line for line in path.read_bytes().splitlines() if b"{" in line]


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {}
            yield entry if isinstance(entry, dict) else {}
