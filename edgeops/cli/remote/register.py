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
    skip: Annotated[bool, typer.Option("--skip-existing", help="With --from: leave devices that exist as they are.")] = False,
    qr: Qr = False,
) -> None:  # fmt: skip
    """Register a device and print the line to paste on it (its one-time token is shown only here).

    Example: edgeops device register pi-01 --label site=berlin --label arch=arm
    """
    if (device is None) == (source is None) or (source is not None and (fingerprint or qr)):
        raise Misuse("device-or-file", "name one device ID, or give --from devices.csv, whose column `fingerprint` names keys")
    common = labels(label or [])
    more = {"ttl_s": ttl, "approval": approval, "reissue": reissue}
    if source is not None:
        _register_all(run, source, common, more, skip)
        return
    answer = run.client().post("/devices", {"id": device, "labels": common, "fingerprint": fingerprint, **more})
    done = _made(str(device), common, answer)
    why = "its key lets it in" if fingerprint else "it works once"
    run.emit(done, lambda: _show_line(run, done["line"], f"Paste this on {device} ({why}):", qr))


def _register_all(run: Run, source: Path, common: dict[str, str], more: dict[str, Any], skip: bool) -> None:
    """Row by row: what was registered stays, whatever comes after it. Raises Misuse with the line that was refused."""
    rows = read_csv(source)
    # Tokens are shown once: those made before something went wrong must not be lost.
    done: list[dict[str, Any]] = []
    skipped: list[str] = []
    run.failure = {"devices": done}
    for number, (line, name, key, own) in enumerate(rows, 1):
        wanted = {"id": name, "labels": common | own, "fingerprint": key, **more}
        try:
            answer = run.client().post("/devices", wanted)
        except Misuse as error:
            if error.reason != "device-exists" or not skip:
                raise _stopped(source, line, len(done), error) from None
            skipped.append(name)
            run.note(f"{number}/{len(rows)} {name} exists already: skipped")
            continue
        done.append(_made(name, common | own, answer))
        if not run.json:
            print(f"{name}\t{done[-1]['line']}", flush=True)
            run.note(f"{number}/{len(rows)} registered")
    run.emit({"devices": done, "skipped": skipped}, lambda: None)


def _stopped(source: Path, line: int, made: int, error: Misuse) -> Misuse:
    on = "; to leave it as it is and go on add --skip-existing" if error.reason == "device-exists" else ""
    stay = f"; the {made} registered before it stay, so give the file again with --skip-existing" if made and not on else ""
    return Misuse(error.reason, f"{source}, line {line}: {error.message}{on}{stay}")


def _made(name: str, own: dict[str, str], answer: dict[str, Any]) -> dict[str, Any]:
    made = {"id": name, "labels": own, "token": answer["token"], "line": enrol_line(answer["token"])}
    return made | ({"expires": answer["expires"]} if answer.get("expires") else {})


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


def read_csv(path: Path) -> list[tuple[int, str, str, dict[str, str]]]:
    """Line numbers, ids, fingerprints (empty for none) and labels of a CSV file; empty cells are no label.

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
            own = {column: value.strip() for column, value in row.items() if value and value.strip()}
            found.append((rows.line_num, name, key, own))
    if not found:
        raise Misuse("csv-malformed", f"{path} names no device")
    keys = [key.replace(":", "").lower() for _, _, key, _ in found if key]
    if len({name for _, name, _, _ in found}) != len(found) or len(set(keys)) != len(keys):
        raise Misuse("csv-malformed", f"{path} names a device or a fingerprint twice")
    return found


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
