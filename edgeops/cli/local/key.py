"""edgeops key …: the Ed25519 keys that sign documents."""

import os
import stat
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeops.wire.errors import Misuse
from edgeops.wire.keys import Signer, private_pem, public_pem

from .. import show
from ..frame import Run, command
from .place import open_place
from .signers import PassphraseFile, ask_new_passphrase

app = typer.Typer(help="Look at and make signing keys.", no_args_is_help=True)
Hidden = Annotated[
    bool, typer.Option("--passphrase", help="Encrypt the file; the passphrase is asked, or as --passphrase-file says.")
]


@command(app, "new")
def new(
    run: Run,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file; it is never overwritten.")],
    passphrase: Hidden = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make a new Ed25519 key (mode 0600), and beside it FILE.pub with its public half; print its id.

    Example: edgeops key new ci-release.key --passphrase
    """
    word = ask_new_passphrase(passphrase_file) if passphrase or passphrase_file else ""
    private, public = Ed25519PrivateKey.generate(), file.with_name(f"{file.name}.pub")
    signer = Signer.of(private)
    if public.exists():
        raise Misuse("file-exists", f"{public} exists; a key is never overwritten, choose another name")
    _write_new(file, private_pem(private, word), 0o600)
    _write_new(public, public_pem(signer.public), 0o644)
    data = {"id": signer.id, "public": signer.public.hex(), "path": str(file), "encrypted": bool(word)}
    run.emit(data, lambda: show.pairs(data))


def _write_new(file: Path, data: bytes, mode: int) -> None:
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise Misuse("file-exists", f"{file} exists; a key is never overwritten, choose another name") from None
    with os.fdopen(handle, "wb") as out:
        out.write(data)
