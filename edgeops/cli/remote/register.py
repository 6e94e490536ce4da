"""edgeops device register|token|join-line: how a device gets in. What is printed is what is pasted on the device."""

import csv
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeops.wire.errors import Misuse

from ..client import at
from ..frame import Run, command

app = typer.Typer(help="Register devices, look at them, label, approve and revoke them.", no_args_is_help=True)
TTL_S = 86_400
FINGERPRINT = "fingerprint"
DeviceId = Annotated[str, typer.Argument(metavar="ID", help="The device's id: 1 to 64 of A-Z a-z 0-9 _ -.")]
Labels = Annotated[list[str] | None, typer.Option("--label", metavar="K=V", help="A label; repeat for more.")]
Ttl = Annotated[int, typer.Option(min=60, metavar="SECONDS", help="How long the token can be used.")]
Qr = Annotated[bool, typer.Option("--qr", help="Draw it as a QR code too, on stderr.")]


@command(app, "register")
def register(
    run: Run,
    device: Annotated[str | None, typer.Argument(metavar="ID", help="The device's id: 1 to 64 of A-Z a-z 0-9 _ -.")] = None,
    label: Labels = None,
    ttl: Ttl = TTL_S,
    source: Annotated[Path | None, typer.Option(
        "--from", metavar="CSV", help="Register every row: a column `id`, perhaps `fingerprint`, every other column is a label."
    )] = None,
    approval: Annotated[bool, typer.Option("--require-approval", help="An operator must approve it when it enrols.")] = False,
    fingerprint: Annotated[str, typer.Option(
        metavar="HEX", help="SHA-256 of its identity key, from `edgeops-agent identity`: it then needs no secret."
    )] = "",
    reissue: Annotated[bool, typer.Option("--reissue", help="Use the id of a decommissioned device again.")] = False,
    qr: Qr = False,
) -> None:  # fmt: skip
    """Register a device and print the line to paste on it (its one-time token is shown only here).

    Example: edgeops device register pi-01 --label site=berlin --label arch=arm
    """
    if (device is None) == (source is None) or (source is not None and (fingerprint or qr)):
        raise Misuse("device-or-file", "name one device ID, or give --from devices.csv, whose column `fingerprint` names keys")
    common = labels(label or [])
    rows = [(device, fingerprint, common)] if device is not None else [
        (name, key, common | own) for name, key, own in read_csv(source or Path())
    ]  # fmt: skip
    # Tokens are shown once: those made before something went wrong must not be lost.
    done: list[dict[str, Any]] = []
    run.failure = {"devices": done} if source else {}
    for number, (name, key, own) in enumerate(rows, 1):
        wanted = {"id": name, "labels": own, "ttl_s": ttl, "approval": approval, "fingerprint": key, "reissue": reissue}
        answer = run.client().post("/devices", wanted)
        done.append({"id": name, "labels": own, "token": answer["token"], "line": enrol_line(answer["token"])} | _extra(answer))
        if source and not run.json:
            print(f"{name}\t{done[-1]['line']}", flush=True)
            run.note(f"{number}/{len(rows)} registered")
    if source:
        run.emit({"devices": done}, lambda: None)
    else:
        why = "its key lets it in" if fingerprint else "it works once"
        run.emit(done[0], lambda: _show_line(run, done[0]["line"], f"Paste this on {device} ({why}):", qr))


@command(app, "token")
def token(run: Run, device: DeviceId, ttl: Ttl = TTL_S, qr: Qr = False) -> None:
    """Print a new one-time token for a registered device: to enrol it again after it was re-flashed, revoked or cloned.

    Example: edgeops device token pi-01
    """
    answer = run.client().post(at("devices", device, "token"), {"ttl_s": ttl})
    data = {"id": device, "token": answer["token"], "line": enrol_line(answer["token"])}
    run.emit(data, lambda: _show_line(run, data["line"], f"Paste this on {device} (it works once):", qr))


@command(app, "join-line")
def join_line(run: Run, qr: Qr = False) -> None:
    """Print the one line for all devices that were registered by fingerprint. It holds no secret: bake it into their image.

    Example: edgeops device join-line
    """
    text = run.client().get("/join-line")["line"]
    data = {"token": text, "line": enrol_line(text)}
    run.emit(data, lambda: _show_line(run, data["line"], "Run this on every device whose fingerprint is registered:", qr))


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


def read_csv(path: Path) -> list[tuple[str, str, dict[str, str]]]:
    """Ids, fingerprints (empty for none) and labels of a CSV file; empty cells are no label.

    Raises Misuse("csv-malformed"), before anything is registered.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if "id" not in (rows.fieldnames or []):
            raise Misuse("csv-malformed", f"{path} has no column `id`; its first line must name the columns, e.g. id,site,arch")
        found = []
        for row in rows:
            name, key = (row.pop("id") or "").strip(), (row.pop(FINGERPRINT, "") or "").strip()
            if not name or None in row:
                raise Misuse("csv-malformed", f"{path}, line {rows.line_num}: an id and as many cells as columns are needed")
            found.append((name, key, {column: value.strip() for column, value in row.items() if value and value.strip()}))
    if not found:
        raise Misuse("csv-malformed", f"{path} names no device")
    keys = [key.replace(":", "").lower() for _, key, _ in found if key]
    if len({name for name, _, _ in found}) != len(found) or len(set(keys)) != len(keys):
        raise Misuse("csv-malformed", f"{path} names a device or a fingerprint twice")
    return found


def _extra(answer: dict[str, Any]) -> dict[str, Any]:
    return {"expires": answer["expires"]} if answer.get("expires") else {}


def _show_line(run: Run, line: str, what: str, qr: bool) -> None:
    run.note(f"{what}\n")
    print(line, flush=True)
    if qr:
        run.note(draw_qr(line.split()[2]))


def draw_qr(text: str) -> str:
    """A QR code in half blocks, dark on light, as wide as it must be: 93 columns for a usual token."""
    import segno  # here, since nothing else of the command line needs it

    rows = [[bool(dark) for dark in row] for row in segno.make(text, error="l", micro=False).matrix_iter(border=2)]
    if len(rows) % 2:
        rows.append([False] * len(rows[0]))
    blocks = {(False, False): "█", (False, True): "▀", (True, False): "▄", (True, True): " "}
    # Light is drawn, dark is left out: most terminals are dark, and readers take both.
    return "\n".join("".join(map(blocks.__getitem__, zip(*pair, strict=True))) for pair in zip(rows[::2], rows[1::2], strict=True))
