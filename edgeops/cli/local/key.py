"""edgeops key …: the Ed25519 keys that sign documents."""

import os
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeops.manager.files import write_whole
from edgeops.manager.layout import Layout
from edgeops.wire import envelope
from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.keys import Signer, is_encrypted, key_id, private_pem, public_from_text, public_pem, signer_from_pem
from edgeops.wire.root import ROLES, Root
from edgeops.wire.rotation import Change, next_root, read_root

from .. import show
from ..frame import Run, command
from . import ceremony, site
from .ceremony import Folder, Ground, Keys
from .place import Dir, Place, must_find
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


@command(app, "list")
def list_(run: Run, folder: Dir = None) -> None:
    """List the keys that the current root names and the key files in a manager's folder. Private parts are never shown.

    Example: edgeops key list ./berlin
    """
    place = must_find(folder, run.context)
    root = read_root(place.layout.newest("root").read_bytes())
    found = [row for role in ROLES for row in _rows(place.layout, root, role)]
    rows = [(r["role"], r["id"], r["must_sign"], r["mode"], r["path"] or "not here (offline)", r["note"]) for r in found]
    run.emit({"keys": found}, lambda: show.print_table(("role", "id", "must sign", "mode", "file", ""), rows))


@command(app, "rotate")
def rotate(
    run: Run,
    role: Annotated[str, typer.Argument(metavar="ROLE", help=", ".join(ROLES))],
    old: Annotated[str | None, typer.Option("--old", metavar="ID", help="Which key goes, where the role has several.")] = None,
    overlap: Annotated[bool, typer.Option("--overlap", help="Keep the old key too, until `edgeops key revoke`.")] = False,
    folder: Folder = None,
    key: Keys = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Give a role a new key in the manager's folder, and publish the root that names it instead of the old one.

    Needs enough root keys: those in the folder, or --key. With several holders use `edgeops root propose` instead.

    Example: edgeops key rotate online
    """
    here, place = _here(run, folder)
    if role not in ROLES:
        raise Misuse("unknown-role", f"there is no role {role!r}; roles are {', '.join(ROLES)}")
    held = here.root.roles[role].keys
    if len(held) > 1 and not (old or overlap):
        raise Misuse("which-key", f"role {role} has {len(held)} keys; say with --old which one goes: {', '.join(held)}")
    private = Ed25519PrivateKey.generate()
    made = Signer.of(private)
    leaving = () if overlap else ((role, old or held[0]),)
    path = place.layout.key(f"{role}-{made.id[:8]}")
    sealed = _next(here, Change(((role, made.public),), leaving), key or [], passphrase_file, [made])
    # The key lies in the folder before any root names it, and the old one stays until the new root is there.
    write_whole(path, private_pem(private), 0o600)
    try:
        _finish(run, here, sealed, {"id": made.id, "path": str(path)}, f"{role}: new key {made.id} in {path}")
    except (Misuse, Rejected):  # a clear no; after anything else the root may be published yet, and needs its key
        if made.id not in _ever_named(place.layout):
            path.unlink()
        raise


@command(app, "revoke")
def revoke(
    run: Run,
    name: Annotated[str, typer.Argument(metavar="ID", help="The key's id, or how it begins.")],
    folder: Folder = None,
    key: Keys = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Take a key out of every role and publish the root that does not name it: what it signed is believed no longer.

    The last key a role needs cannot be revoked; `edgeops key rotate` puts another in its place.

    Example: edgeops key revoke 4f2a91c0
    """
    here, place = _here(run, folder)
    idle = [path for found, path in unnamed(place.layout, here.root) if name and found.startswith(name)]
    if idle and not any(held.startswith(name) for held in here.root.keys):
        text = f"the root does not name key {name}, so there is nothing to revoke"
        raise Misuse("unknown-key", f"{text}; its file is {', '.join(map(str, idle))}: remove it")
    sealed = _next(here, Change(remove=(("", name),)), key or [], passphrase_file, [])
    gone = sorted(here.root.keys.keys() - read_root(sealed).keys.keys())
    _finish(run, here, sealed, {"revoked": gone}, f"revoked {', '.join(gone)}")


def _here(run: Run, folder: Path | None) -> tuple[Ground, Place]:
    here = ceremony.ground(run, folder)
    if here.place is None:
        raise Misuse("no-manager", "this works on the manager's folder; elsewhere use `edgeops root propose`, `sign` and `publish`")
    return here, here.place


def _next(here: Ground, change: Change, keys: list[str], passphrase_file: Path | None, new: list[Signer]) -> bytes:
    """The next root, signed by all root keys at hand; raises Misuse("threshold") when they are too few."""
    made = next_root(here.root, change, int(time.time()))
    known = {*here.root.roles["root"].keys, *made.roles["root"].keys}
    signers = [one for one in [*ceremony.signers_for(here, "root", keys, passphrase_file), *new] if one.id in known]
    sealed = envelope.seal("root", made.payload(), signers)
    if wants := ceremony.wants_of("root", sealed, here.root):
        text = f"{ceremony.wanted(wants)}; give their --key, or with several holders use `edgeops root propose`, sign, publish"
        raise Misuse("threshold", text)
    return sealed


def _finish(run: Run, here: Ground, sealed: bytes, data: dict[str, Any], said: str) -> None:
    """Publish the root, sign what a removed key had signed, throw removed keys away."""
    answer = ceremony.publish(run, here.place, "root", sealed)
    for kind in answer["stale"]:
        answer = sign_anew(run, ceremony.ground(run, here.place.layout.root if here.place else None), kind) or answer
    gone = [str(path) for path in tidy(here.place.layout)] if here.place else []
    text = ceremony.said({**answer, "kind": "root", "version": answer["documents"]["root"]})
    left = "".join(f"\nremoved {path}: no root names its key any more" for path in gone)
    run.emit({**answer, **data, "removed_files": gone, "published": True}, f"{said}\n{text}{left}")


def sign_anew(run: Run, here: Ground, kind: str) -> dict[str, Any] | None:
    """Publish the site or floor once more, under the keys of the current root where enough of them lie here."""
    from edgeops.manager.site import read_floor

    try:
        if kind == "site":
            data = site.next_document(run, here, [], None)
        else:
            floor = read_floor(here.floor)
            made = replace(floor, version=floor.version + 1)
            data = envelope.seal(kind, made.payload(), ceremony.signers_for(here, "release", [], None))
    except Misuse as error:
        if error.reason not in ("no-keys", "passphrase-needed"):
            raise
        return None
    return None if ceremony.lacks(kind, data, here.root) else ceremony.publish(run, here.place, kind, data)


def tidy(layout: Layout) -> list[Path]:
    """Throw away key files that an older root named and the current one does not, and tell which; encrypted ones stay, unless
    FILE.pub tells.
    """
    once, current = _ever_named(layout), read_root(layout.newest("root").read_bytes())
    gone = [path for name, path in unnamed(layout, current) if name in once]
    for path in gone:
        path.unlink()
    return gone


def unnamed(layout: Layout, root: Root) -> list[tuple[str, Path]]:
    """The key files, with their keys' ids, that lie here but not in `root`; of encrypted ones only FILE.pub tells."""
    found = [(id_of(path), path) for role in ROLES for path in layout.keys(role)]
    return [(name, path) for name, path in found if name and name not in root.keys]


def _ever_named(layout: Layout) -> set[str]:
    return {name for path in layout.all_of("root") for name in read_root(path.read_bytes()).keys}


def _rows(layout: Layout, root: Root, role: str) -> list[dict[str, Any]]:
    files = {id_of(path) or str(path): path for path in layout.keys(role)}
    named = root.roles[role]
    rows = [_row(role, name, files.pop(name, None), f"{named.threshold} of {len(named.keys)}", "") for name in named.keys]
    return rows + [_row(role, id_of(path), path, "", "encrypted" if id_of(path) is None else "not in the root")
                   for path in files.values()]  # fmt: skip


def _row(role: str, name: str | None, path: Path | None, must_sign: str, note: str) -> dict[str, Any]:
    mode = f"{stat.S_IMODE(path.stat().st_mode):04o}" if path else None
    return {"role": role, "id": name, "must_sign": must_sign, "mode": mode, "path": str(path) if path else None, "note": note}


def id_of(path: Path) -> str | None:
    """The id of the key in a file; of an encrypted one only where its public half lies beside it."""
    pem, public = path.read_bytes(), path.with_name(f"{path.name}.pub")
    if not is_encrypted(pem):
        return signer_from_pem(pem, str(path)).id
    return key_id(public_from_text(public.read_text("utf-8"), str(public))) if public.is_file() else None


def _write_new(file: Path, data: bytes, mode: int) -> None:
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise Misuse("file-exists", f"{file} exists; a key is never overwritten, choose another name") from None
    with os.fdopen(handle, "wb") as out:
        out.write(data)
