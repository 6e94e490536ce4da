"""edgeops device …: who is in the fleet, and how one leaves it."""

from typing import Annotated, Any

import typer

from edgeops.wire.errors import Misuse, Unreachable

from .. import show
from ..client import at, items
from ..frame import Run
from .register import DeviceId, labels

GATES = {"waiting": "fetch", "ready": "activate", "proven": "commit"}
TIMES = ("created", "certificate_expires", "last_seen", "token_expires", "reported_at")
Selector = Annotated[str | None, typer.Option("--selector", metavar="SELECTOR", help="Only devices it matches, e.g. site=berlin.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def list_(
    run: Run,
    selector: Selector = None,
) -> None:
    """List devices with their presence, labels and what they run.

    Example: edgeops device list --selector 'site=berlin'
    """
    found = items(run.client().get("/devices", selector=selector), "devices")
    run.emit({"devices": found}, lambda: print_devices(found, selector))


def show_(run: Run, device: DeviceId) -> None:
    """Show everything known about one device: facts, desired and reported state.

    Example: edgeops device show pi-01
    """
    data = run.client().get(at("devices", device))
    waits = data.get("pending")
    shown = data | ({"pending": waits | {"since": show.when(waits.get("since"))}} if waits else {})
    run.emit(data, lambda: show.pairs(shown | {"waits": waits_for(data)}, TIMES))


def waits_for(device: dict[str, Any]) -> list[str]:
    """What the slots of a device wait for: in its own words, else what its order names for that phase."""
    found = []
    for slot, report in (device.get("reported") or {}).items():
        gate = GATES.get(report.get("phase"))
        if gate:
            wanted = ((device.get("desired") or {}).get(slot) or {}).get("conditions") or {}
            barrier = ["the barrier"] if gate == "commit" and wanted.get("barrier") else []
            found.append(f"{slot} to {gate}: {report.get('detail') or ', '.join([*wanted.get(gate, ()), *barrier])}")
    return found


def label_(
    run: Run,
    device: DeviceId,
    change: Annotated[list[str], typer.Argument(metavar="K=V…", help="Labels to set; K= removes one.")],
) -> None:
    """Set or remove labels of a device.

    Example: edgeops device label pi-01 site=hamburg old=
    """
    data = run.client().patch(at("devices", device), {"labels": labels(change)})
    run.emit(data, lambda: show.pairs(data))


def revoke(run: Run, device: DeviceId, yes: Yes = False) -> int:
    """Revoke a device: its certificate and tokens stop working at once. A new token brings it back.

    Example: edgeops device revoke pi-01 --yes
    """
    confirm(run, device, yes, f"Revoke {device}? It must be enrolled again to come back.")
    data = run.client().post(at("devices", device, "revoke"))
    run.emit(data, f"revoked {device}{_shown(data)}")
    return proven(data)


def decommission(run: Run, device: DeviceId, yes: Yes = False) -> int:
    """End a device for good: its credentials stop working, its id is not given away by accident (`register --reissue` may).

    Example: edgeops device decommission pi-01 --yes
    """
    confirm(run, device, yes, f"Decommission {device}? It cannot come back.")
    data = run.client().post(at("devices", device, "decommission"))
    run.emit(data, f"decommissioned {device}{_shown(data)}")
    return proven(data)


def release(
    run: Run, device: Annotated[str | None, typer.Argument(metavar="ID", help="The device.")] = None, selector: Selector = None,
    yes: Yes = False,
) -> None:  # fmt: skip
    """Listen again to a device that spoke as two, once its clone is gone. If you cannot tell them apart, use `device token`.

    With a selector: to all in quarantine that it matches, after asking. Look at the broker first if there are many.

    Example: edgeops device release-quarantine pi-01
    """
    if (device is None) == (selector is None):
        raise Misuse("ids-or-selector", "name the device, or give --selector")
    if device is not None:
        run.emit(run.client().post(at("devices", device, "release")), f"released {device}")
        return
    found = items(run.client().get("/devices", selector=selector), "devices")
    names = [str(one["id"]) for one in found if one.get("status") == "clone"]
    if not names:
        raise Misuse("not-quarantined", f"no device in quarantine matches {selector}")
    confirm(run, "them", yes, f"Release {len(names)} devices, {', '.join(names[:8])}{' …' if len(names) > 8 else ''}?")
    released = [run.client().post(at("devices", name, "release")) for name in names]
    run.emit({"devices": released}, f"released {', '.join(names)}")


def confirm(run: Run, device: str, yes: bool, question: str) -> None:
    """Ask, unless told not to; raises Misuse("not-confirmed")."""
    if not yes and not run.json and not typer.confirm(question, err=True):
        raise Misuse("not-confirmed", f"nothing was done to {device}; confirm, or pass --yes")


def proven(data: dict[str, Any]) -> int:
    """The exit code: a device that was not shown to be out is for its caller to know, whatever the manager goes on trying."""
    return 0 if data.get("silenced", True) else Unreachable.exit_code


def _shown(data: dict[str, Any]) -> str:
    """What the broker showed, where one was asked."""
    if data.get("silenced"):
        return f"; the broker has shut it out, shown after {data['silenced_ms']} ms"
    return f"; not yet shown to be out: {data['missing']}; the manager goes on trying" if data.get("missing") else ""


def nobody(selector: str | None) -> str:
    """What to say where there is no device to show."""
    return f"no device matches {selector}" if selector else "no device yet; add one with `edgeops device register ID`"


def print_devices(found: list[dict[str, Any]], selector: str | None) -> None:
    """A table of devices."""
    columns = ("id", "state", "labels", "runs", "class", "last seen")
    show.print_table(columns, (_row(device) for device in found), nobody(selector))


def _row(device: dict[str, Any]) -> tuple[object, ...]:
    return (
        device.get("id"), standing(device), device.get("labels"), runs(device),
        device.get("device_class") or device.get("class"), show.when(device.get("last_seen")),
    )  # fmt: skip


def standing(device: dict[str, Any]) -> object:
    """Whether a device is there; or, where that is not the question, that it is registered only, revoked, a clone …"""
    return device.get("presence") if device.get("status") in ("enrolled", None) else device.get("status")


def runs(device: dict[str, Any]) -> str:
    """What a device runs, per slot, as model:version."""
    slots = device.get("slots") or device.get("runs") or {}
    if isinstance(slots, dict):
        return ", ".join(show.plain(value) for value in slots.values() if value)
    return show.plain(slots)
