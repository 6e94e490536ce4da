"""edgeops release sign|upload|show: release folders, made by the forge or put together by hand."""

from pathlib import Path
from typing import Annotated, Any

import typer

from edgeops.wire.envelope import digest_of, signers_of, split

from .. import show
from ..frame import Run
from ..remote.releases import release as show_remote
from .folder import send
from .place import find_folder, release_signers
from .signers import NOTATION, PassphraseFile

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="A release folder: release.json and objects/.")]
Keys = Annotated[
    list[str] | None,
    typer.Option("--key", metavar="KEY", help=f"A release key: {NOTATION}. Default: $EDGEOPS_RELEASE_KEY, else the folder's."),
]
ManagerFolder = Annotated[
    Path | None, typer.Option("--folder", metavar="DIR", help="The manager's folder, for its release key and fleet name.")
]
Replace = Annotated[bool, typer.Option("--replace", help="Drop the signatures that are there already.")]
What = Annotated[str, typer.Argument(metavar="MODEL:VERSION|FOLDER", help="A release the manager holds, or a folder here.")]


def sign(
    run: Run, folder: Folder, key: Keys = None, manager: ManagerFolder = None, replace: Replace = False,
    passphrase_file: PassphraseFile = None,
) -> None:  # fmt: skip
    """Check a release folder and sign it here, in this process; the key goes nowhere. Signatures that are there already stay.

    Example: edgeops release sign ./releases/digits-2 --key release.key
    """
    from edgeops.forge.sign import sign_release

    signers = release_signers(key or [], find_folder(manager, run.context), passphrase_file)
    envelope = sign_release(folder, signers, replace)
    data = {"folder": str(folder), "digest": digest_of(envelope, "release"), "signed_by": sorted(signers_of(envelope, "release"))}
    run.emit(data, f"signed {folder} (digest {data['digest']}) with {', '.join(data['signed_by'])}")


def upload(run: Run, folder: Folder) -> None:
    """Upload a signed release folder: its objects first, then the release that names them.

    Example: edgeops release upload ./releases/digits-2
    """
    data = send(run, folder)
    done = data["uploaded"]
    text = f"{done['objects']} objects, {show.size(done['bytes'])}; {done['held']} were there already"
    run.emit(data, f"uploaded {data['model']}:{data['version']}: {text}")


def show_(run: Run, what: What) -> None:
    """Show a release the manager holds, or check and show a release folder on this machine.

    Example: edgeops release show digits:1
    """
    folder = Path(what)
    if not folder.is_dir():
        show_remote(run, what)
        return
    data = local(folder)
    run.emit(data, lambda: _draw(data))


def local(folder: Path) -> dict[str, Any]:
    """What a release folder holds, after every check; raises Misuse and Rejected like `check_folder`."""
    from edgeops.forge.pack import ENVELOPE
    from edgeops.forge.sign import check_folder

    release, envelope = check_folder(folder), folder / ENVELOPE
    signed = sorted(split(envelope.read_bytes(), "release")[1]) if envelope.is_file() else []
    return release.payload() | {"folder": str(folder), "signed_by": signed}


def _draw(data: dict[str, Any]) -> None:
    show.pairs({"release": f"{data['model']}:{data['version']}", "fleet": data["fleet"], "created": show.when(data["created"]),
                "opset": data["opset"], "runtime": data["runtime"], "signed by": data["signed_by"] or "nobody yet"})  # fmt: skip
    rows = [(name, item["classes"], item.get("options", {}), show.size(item["size"])) for name, item in data["variants"].items()]
    show.print_table(("variant", "classes", "options", "size"), rows)
