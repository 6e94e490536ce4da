"""edgeops status and edgeops health: the fleet at a glance."""

from typing import Any

from .. import show
from ..client import items
from ..frame import Run
from .devices import Selector, nobody, runs, standing


def status(
    run: Run,
    selector: Selector = None,
) -> None:
    """Show the fleet: each device's presence, model:version, p50/p99 latency, drift and what it refused.

    Example: edgeops status --selector 'site=berlin'
    """
    data = run.client().get("/status", selector=selector)
    run.emit(data, lambda: _draw(data, selector))


def health(run: Run) -> int:
    """Ask the manager whether it is well: exit 0 when it is, 1 when a part of it is not.

    Example: edgeops health
    """
    data = run.client().get("/health/details")
    run.emit(data, lambda: show.pairs(data))
    return 0 if str(data.get("status", "ok")) in ("ok", "healthy", "pass") else 1


def _draw(data: dict[str, Any], selector: str | None) -> None:
    columns = ("device", "presence", "runs", "p50", "p99", "inferences", "drift", "refused")
    found = items(data, "devices")
    show.print_table(columns, (_row(device) for device in found), nobody(selector))
    rest = {name: value for name, value in data.items() if name != "devices" and not isinstance(value, list)}
    if rest:
        show.pairs(rest)


def _row(device: dict[str, Any]) -> tuple[object, ...]:
    drift = device.get("drift")
    alarm = drift.get("alarm") if isinstance(drift, dict) else drift
    word = "ALARM" if alarm is True else "ok" if alarm is False else alarm
    return (
        device.get("id") or device.get("device"), standing(device), runs(device), show.micros(device.get("p50_us")),
        show.micros(device.get("p99_us")), device.get("inferences"), word,
        device.get("refused"),
    )  # fmt: skip
