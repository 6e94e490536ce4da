"""edgeops release export: a signed release for users of other standards, checked and signed in this process."""

import os
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeops.manager.layout import Layout
from edgeops.wire.envelope import open_sealed
from edgeops.wire.errors import Misuse
from edgeops.wire.rotation import read_root

from ..frame import Run
from .folder import read_signed
from .place import find_folder, release_signers
from .release import Folder, Keys, ManagerFolder
from .signers import NOTATION, PASSPHRASE, PassphraseFile, open_signers


class Format(StrEnum):
    """The standards a release can be exported to."""

    oms = "oms"
    tuf = "tuf"


Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where it goes; an export of another release there stays.")]
OmsKey = Annotated[
    Path | None, typer.Option("--oms-key", metavar="FILE", help="oms: a P-256 key (PEM); the standard knows no Ed25519.")
]
RootKeys = Annotated[
    list[str] | None, typer.Option("--root-key", metavar="KEY", help=f"tuf: a root key, the first time: {NOTATION}.")
]
RootFile = Annotated[
    Path | None, typer.Option("--root", metavar="FILE", help="tuf: the fleet's root document (default: the folder's).")
]
Days = Annotated[int, typer.Option(min=1, max=3650, help="tuf: how long the metadata is good.")]


def export(
    run: Run, folder: Folder, *, format_: Annotated[Format, typer.Option("--format", help="oms or tuf.")], out: Out,
    key: Keys = None, oms_key: OmsKey = None, root_key: RootKeys = None, root: RootFile = None, days: Days = 365,
    manager: ManagerFolder = None, passphrase_file: PassphraseFile = None,
) -> None:  # fmt: skip
    """Export a signed release folder as an OpenSSF model-signing bundle (oms) or into a TUF repository (tuf).

    Example: edgeops release export ./releases/digits-2 --format oms --oms-key oms.key --out ./public
    """
    if format_ is Format.oms:
        data = _oms(folder, out, oms_key, passphrase_file)
        check = f"model_signing verify key {data['model']} --signature {data['signature']} --public_key {data['public_key']}"
        run.emit(data, f"signed {data['model']}; anybody can check it with\n  {check}")
        return
    place = find_folder(manager, run.context)
    if root is None and place is None:
        raise Misuse("no-document", "the fleet's root says which keys may sign; give --root FILE, or --folder DIR")
    document = root or Layout(place or Path()).newest("root")
    first = not (out / "metadata" / "timestamp.json").exists()
    roots = root_key or ([str(path) for path in Layout(place).keys("root")] if first and place and root is None else [])
    data = _tuf(folder, out, document, (roots, key or []), place, days, passphrase_file)
    run.emit(data, f"{len(data['targets'])} targets of {data['release']} are in {out}; clients begin with {data['root']}")


def _oms(folder: Path, out: Path, key: Path | None, passphrase_file: Path | None) -> dict[str, Any]:
    from edgeops.forge.export_oms import export_oms, load_key

    if key is None:
        text = "OMS signs with ECDSA on P-256, and release keys are Ed25519; give a key of its own with --oms-key FILE"
        raise Misuse("no-keys", text)
    lines = passphrase_file.read_text("utf-8").splitlines() if passphrase_file else [os.environ.get(PASSPHRASE, "")]
    pem = key.read_bytes()
    signer = load_key(pem, str(key), (lines or [""])[0] if b"ENCRYPTED" in pem else "")
    release, _ = read_signed(folder)
    return {"format": "oms", **export_oms(folder, release, out, signer)}


def _tuf(
    folder: Path, out: Path, root: Path, keys: tuple[list[str], list[str]], place: Path | None, days: int, passphrases: Path | None
) -> dict[str, Any]:
    from edgeops.forge.export_tuf import Repository, expiry

    release, sealed = read_signed(folder)
    fleet_root = read_root(root.read_bytes())
    open_sealed(sealed, "release", fleet_root.keys_of("release"), fleet_root.roles["release"].threshold)
    roots, signers = open_signers(keys[0], passphrases), release_signers(keys[1], place, passphrases)
    repository = Repository(out, fleet_root, expiry(int(time.time()), days))
    targets = repository.add(folder, release, roots, signers)
    first = repository.metadata / "root.json"
    return {"format": "tuf", "release": f"{release.model}:{release.version}", "targets": targets, "root": str(first)}
