"""edgeops drift, telemetry and audit: what the fleet saw and what people did."""

from typing import Annotated, Any

import typer

from .. import show
from ..client import items
from ..frame import Run


def drift(run: Run) -> None:
    """Show the drift verdict of every device: statistic, threshold, p-value, effect size, strongest probes.

    Example: edgeops drift
    """
    answer = run.client().get("/drift")
    found = items(answer, "drift")
    run.emit(answer if isinstance(answer, dict) else {"drift": found}, lambda: _rows(found, "no telemetry yet"))


def telemetry(
    run: Run,
    device: Annotated[str | None, typer.Option(metavar="ID", help="Only of this device.")] = None,
) -> None:
    """Show what devices reported: inferences, errors, latency per stage, windows, gaps.

    Example: edgeops telemetry --device pi-01
    """
    answer = run.client().get("/telemetry", device=device)
    found = items(answer, "telemetry")
    run.emit(answer if isinstance(answer, dict) else {"telemetry": found}, lambda: _rows(found, "no telemetry yet"))


def audit(
    run: Run,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most this many entries, newest last.")] = 50,
) -> None:
    """Show the hash-chained audit log: who did what to what, when.

    Example: edgeops audit --limit 20
    """
    answer = run.client().get("/audit", limit=limit)
    found = items(answer, "audit")
    run.emit(answer if isinstance(answer, dict) else {"audit": found}, lambda: _rows(found, "nothing yet"))


def _rows(found: list[dict[str, Any]], empty: str) -> None:
    columns = list(dict.fromkeys(name for row in found for name in row))
    show.print_table(columns, ([_value(name, row.get(name)) for name in columns] for row in found), empty)


def _value(name: str, value: Any) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if name.endswith("_us"):
            return show.micros(value)
        if name in ("at", "time", "seen", "last_seen", "created"):
            return show.when(value)
    return value
