"""edgeops device …: who is in the fleet and how one gets in."""

import csv
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeops.wire.errors import Misuse

from .. import show
from ..client import at, items
from ..frame import Run, command

app = typer.Typer(help="Register devices, look at them, label and revoke them.", no_args_is_help=True)
TTL_S = 86_400
TIMES = ("created", "certificate_expires", "last_seen", "token_expires", "reported_at")
DeviceId = Annotated[str, typer.Argument(metavar="ID", help="The device's id: 1 to 64 of A-Z a-z 0-9 _ -.")]
Labels = Annotated[list[str] | None, typer.Option("--label", metavar="K=V", help="A label; repeat for more.")]

Selector = Annotated[str | None, typer.Option("--selector", metavar="SELECTOR", help="Only devices it matches, e.g. site=berlin.")]


@command(app, "register")
def register(
    run: Run,
    device: Annotated[str | None, typer.Argument(metavar="ID", help="The device's id: 1 to 64 of A-Z a-z 0-9 _ -.")] = None,
    label: Labels = None,
    ttl: Annotated[int, typer.Option(min=60, metavar="SECONDS", help="How long the token can be used.")] = TTL_S,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="CSV", help="Register every row: a column `id`, every other column is a label.")
    ] = None,
) -> None:
    """Register a device and print the line to paste on it (its one-time token is shown only here).

    Example: edgeops device register pi-01 --label site=berlin --label arch=arm
    """
    if (device is None) == (source is None):
        raise Misuse("device-or-file", "name one device ID, or give --from devices.csv")
    common = labels(label or [])
    rows = [(device, common)] if device is not None else [(name, common | own) for name, own in read_csv(source or Path())]
    # Tokens are shown once: those made before something went wrong must not be lost.
    done: list[dict[str, Any]] = []
    run.failure = {"devices": done} if source else {}
    for number, (name, own) in enumerate(rows, 1):
        answer = run.client().post("/devices", {"id": name, "labels": own, "ttl_s": ttl})
        done.append({"id": name, "labels": own, "token": answer["token"], "line": enrol_line(answer["token"])} | _extra(answer))
        if source and not run.json:
            print(f"{name}\t{done[-1]['line']}", flush=True)
            run.note(f"{number}/{len(rows)} registered")
    if source:
        run.emit({"devices": done}, lambda: None)
    else:
        run.emit(done[0], lambda: _show_token(run, done[0]))


@command(app, "token")
def token(
    run: Run,
    device: DeviceId,
    ttl: Annotated[int, typer.Option(min=60, metavar="SECONDS", help="How long the token can be used.")] = TTL_S,
) -> None:
    """Print a new one-time token for a registered device, to enrol it again after it was re-flashed.

    Example: edgeops device token pi-01
    """
    answer = run.client().post(at("devices", device, "token"), {"ttl_s": ttl})
    data = {"id": device, "token": answer["token"], "line": enrol_line(answer["token"])}
    run.emit(data, lambda: _show_token(run, data))


@command(app, "list")
def list_(
    run: Run,
    selector: Selector = None,
) -> None:
    """List devices with their presence, labels and what they run.

    Example: edgeops device list --selector 'site=berlin'
    """
    found = items(run.client().get("/devices", selector=selector), "devices")
    run.emit({"devices": found}, lambda: print_devices(found, selector))


@command(app, "show")
def show_(run: Run, device: DeviceId) -> None:
    """Show everything known about one device: facts, desired and reported state.

    Example: edgeops device show pi-01
    """
    data = run.client().get(at("devices", device))
    run.emit(data, lambda: show.pairs(data, TIMES))


@command(app, "label")
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


@command(app, "revoke")
def revoke(
    run: Run,
    device: DeviceId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Revoke a device: its certificate and tokens stop working at once.

    Example: edgeops device revoke pi-01 --yes
    """
    if not yes and not run.json and not typer.confirm(f"Revoke {device}? It must be enrolled again to come back.", err=True):
        raise Misuse("not-confirmed", f"{device} was not revoked; confirm, or pass --yes")
    data = run.client().post(at("devices", device, "revoke"))
    run.emit(data, f"revoked {device}")


def labels(pairs: list[str]) -> dict[str, str]:
    """`k=v` strings as a mapping; raises Misuse("label-malformed")."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise Misuse("label-malformed", f"label {pair!r} is not K=V, for example site=berlin")
        found[name] = value
    return found


def enrol_line(text: str) -> str:
    """What to paste on the device for a token."""
    return f"edgeops-agent enroll {text} && edgeops-agent run"


def read_csv(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Ids and labels of a CSV file; empty cells are no label. Raises Misuse("csv-malformed"), before anything is registered."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if "id" not in (rows.fieldnames or []):
            raise Misuse("csv-malformed", f"{path} has no column `id`; its first line must name the columns, e.g. id,site,arch")
        found = []
        for row in rows:
            name = (row.pop("id") or "").strip()
            if not name or None in row:
                raise Misuse("csv-malformed", f"{path}, line {rows.line_num}: an id and as many cells as columns are needed")
            found.append((name, {key: value.strip() for key, value in row.items() if value and value.strip()}))
    if not found:
        raise Misuse("csv-malformed", f"{path} names no device")
    if len({name for name, _ in found}) != len(found):
        raise Misuse("csv-malformed", f"{path} names a device twice")
    return found


def nobody(selector: str | None) -> str:
    """What to say where there is no device to show."""
    return f"no device matches {selector}" if selector else "no device yet; add one with `edgeops device register ID`"


def print_devices(found: list[dict[str, Any]], selector: str | None) -> None:
    """A table of devices."""
    columns = ("id", "state", "labels", "runs", "class", "last seen")
    show.print_table(columns, (_row(device) for device in found), nobody(selector))


def _row(device: dict[str, Any]) -> tuple[object, ...]:
    state = device.get("presence") if device.get("status") in ("enrolled", None) else device.get("status")
    return (
        device.get("id"), state, device.get("labels"), runs(device),
        device.get("device_class") or device.get("class"), show.when(device.get("last_seen")),
    )  # fmt: skip


def runs(device: dict[str, Any]) -> str:
    """What a device runs, per slot, as model:version."""
    slots = device.get("slots") or device.get("runs") or {}
    if isinstance(slots, dict):
        return ", ".join(show.plain(value) for value in slots.values() if value)
    return show.plain(slots)


def _extra(answer: dict[str, Any]) -> dict[str, Any]:
    return {"expires": answer["expires"]} if "expires" in answer else {}


def _show_token(run: Run, data: dict[str, Any]) -> None:
    run.note(f"Paste this on {data['id']} (it works once):\n")
    print(data["line"])
