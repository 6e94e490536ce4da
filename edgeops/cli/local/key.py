"""edgeops key …: the Ed25519 keys that sign documents."""

import os
import stat
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edgeops.wire.errors import Misuse
from edgeops.wire.keys import Signer
from edgeops.wire.root import ROLES

from .. import show
from ..frame import Run, command
from .place import open_place

app = typer.Typer(help="Look at and make signing keys.", no_args_is_help=True)


@command(app, "list")
def list_(run: Run, folder: Annotated[Path, typer.Argument(metavar="DIR", help="The manager's folder.")] = Path()) -> None:
    """List the signing keys in a manager's folder: role, id, mode. Private parts are never shown.

    Example: edgeops key list ./berlin
    """
    layout = open_place(folder).layout
    found = [_row(role, layout.key(role)) for role in ROLES]
    rows = [(row["role"], row["id"], row["mode"], row["path"] if row["id"] else "not here (offline)") for row in found]
    run.emit({"keys": found}, lambda: show.print_table(("role", "id", "mode", "file"), rows))


@command(app, "new")
def new(run: Run, file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file; it is never overwritten.")]) -> None:
    """Make a new Ed25519 key (mode 0600) and print its id and public half.

    Example: edgeops key new ci-release.key
    """
    signer = Signer(Ed25519PrivateKey.generate())
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Misuse("file-exists", f"{file} exists; a key is never overwritten, choose another name") from None
    with os.fdopen(handle, "wb") as out:
        out.write(signer.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    data = {"id": signer.id, "public": signer.public.hex(), "path": str(file)}
    run.emit(data, lambda: show.pairs(data))


def _row(role: str, path: Path) -> dict[str, Any]:
    from edgeops.manager.setup import load_signer

    if not path.exists():
        return {"role": role, "id": None, "mode": None, "path": str(path)}
    return {"role": role, "id": load_signer(path).id, "mode": f"{stat.S_IMODE(path.stat().st_mode):04o}", "path": str(path)}
