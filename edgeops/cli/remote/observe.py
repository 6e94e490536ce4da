"""edgeops drift and telemetry: what the fleet saw."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from .. import show
from ..client import items
from ..frame import Run

Device = Annotated[str | None, typer.Option("--device", metavar="ID", help="Only of this device.")]


class Grouping(StrEnum):
    """How windows are merged."""

    device = "device"
    release = "release"
    fleet = "fleet"


By = Annotated[Grouping, typer.Option("--by", help="A row for each device and release, for each release, or for the fleet.")]
WINDOWS = "no telemetry yet; a device sends a window once it has counted 50 inferences (fewer never leave it)"


def drift(run: Run, device: Device = None) -> None:
    """Show the drift verdict of every device: p-value against its threshold, effect size, strongest probes.

    Example: edgeops drift --device pi-01
    """
    answer = run.client().get("/drift", device=device)
    columns = ("device", "slot", "runs", "verdict", "p", "threshold", "effect", "n", "windows", "probes")
    run.emit(answer, lambda: show.print_table(columns, map(_drift, items(answer, "drift")), "no device runs a model yet"))


def telemetry(run: Run, device: Device = None, by: By = Grouping.device) -> None:
    """Show what devices reported: inferences, errors, latency, windows and how many of them are missing.

    Example: edgeops telemetry --by release
    """
    answer = run.client().get("/telemetry", device=device, by=by.value)
    columns = ("device", "runs", "inferences", "errors", "p50", "p99", "windows", "gaps")
    run.emit(answer, lambda: show.print_table(columns, map(_telemetry, items(answer, "telemetry")), WINDOWS))


def _drift(row: dict[str, Any]) -> tuple[object, ...]:
    probes = [f"{p['probe']} ({p['cause']}, {p['direction']:+.2f})" for p in row.get("probes") or []]
    verdict = "ALARM" if row.get("alarm") is True else row.get("verdict")
    return (
        row.get("device"), row.get("slot"), _runs(row), verdict, row.get("p"), row.get("threshold"), row.get("effect"),
        row.get("n"), row.get("windows"), probes[:3],
    )  # fmt: skip


def _telemetry(row: dict[str, Any]) -> tuple[object, ...]:
    p50, p99 = show.micros(row.get("p50_us")), show.micros(row.get("p99_us"))
    device = row.get("device") or f"all ({row.get('devices')})"
    return (device, _runs(row), row.get("calls"), row.get("errors"), p50, p99, row.get("windows"), row.get("gaps"))


def _runs(row: dict[str, Any]) -> str:
    return f"{row['model']}:{row.get('version')}" if row.get("model") else str(row.get("release", ""))
