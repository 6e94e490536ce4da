"""/status, /telemetry and /drift: what the fleet saw."""

from typing import Any

from fastapi import APIRouter

from edgeops.manager import devices, status, telemetry

from .auth import TheHub, Viewer

router = APIRouter(tags=["observe"])


@router.get("/status")
def overview(hub: TheHub, _caller: Viewer, selector: str | None = None) -> dict[str, Any]:
    """Each device with presence, what it runs, latency, drift and what it refused."""
    return status.overview(hub, selector)


@router.get("/telemetry")
def measured(hub: TheHub, _caller: Viewer, device: str | None = None, by: telemetry.By = "device") -> dict[str, Any]:
    """Merged telemetry by device and release, by release, or of the fleet: calls, errors, p50 and p99 in µs, gaps."""
    if device:
        devices.show(hub, device)
    return {"telemetry": telemetry.listed(hub, device, by)}


@router.get("/drift")
def drift(hub: TheHub, _caller: Viewer, device: str | None = None) -> dict[str, Any]:
    """The drift verdict of every device: alarm, p, effect, strongest probes."""
    if device:
        devices.show(hub, device)
    return {"drift": telemetry.drift(hub, device)}
