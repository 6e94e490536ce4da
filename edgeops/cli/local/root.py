"""edgeops root …: the document that names every key, and how its next version is made by several holders."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeops.manager.files import write_whole
from edgeops.wire import envelope
from edgeops.wire.errors import Misuse
from edgeops.wire.rotation import Change, next_root, read_root

from .. import show
from ..frame import Run, command
from . import ceremony
from .ceremony import File, Folder, Keys, Out
from .signers import PassphraseFile, open_signers, public_key

app = typer.Typer(help="The root document: which keys may sign what; propose, sign and publish the next one.", no_args_is_help=True)
Add = Annotated[list[str] | None, typer.Option("--add", metavar="ROLE=KEY", help="A key joins a role: hex, a .pub file, KEY.")]
Remove = Annotated[list[str] | None, typer.Option("--remove", metavar="[ROLE=]ID", help="A key leaves a role, or all roles.")]
Threshold = Annotated[list[str] | None, typer.Option("--threshold", metavar="ROLE=N", help="How many keys of a role must sign.")]
Epoch = Annotated[bool, typer.Option("--raise-epoch", help="Begin to count orders anew; removing an online key always does.")]
Old = Annotated[Path | None, typer.Option("--root", metavar="FILE", help="The current root, where no manager is at hand.")]


@command(app, "propose")
def propose(
    run: Run, add: Add = None, remove: Remove = None, threshold: Threshold = None, raise_epoch: Epoch = False, key: Keys = None,
    out: Out = None, root: Old = None, folder: Folder = None, passphrase_file: PassphraseFile = None,
) -> None:  # fmt: skip
    """Make the next root and write it to a file, for its holders to sign; nothing changes until it is published.

    Example: edgeops root propose --add release=ci.pub --remove 4f2a --threshold root=2 --out root-2.json
    """
    before = read_root(ceremony.read_half(root, "root")) if root else ceremony.ground(run, folder).root
    leaving = tuple((role, name) if found else ("", role) for role, found, name in (text.partition("=") for text in remove or []))
    joining = tuple((role, public_key(value)) for role, value in map(_pair, add or []))
    change = Change(joining, leaving, dict(_number(text) for text in threshold or []), raise_epoch)
    made = next_root(before, change, int(time.time()))
    data = envelope.seal("root", made.payload(), open_signers(key or [], passphrase_file))
    file = out or Path(f"root-{made.version}.json")
    write_whole(file, data)
    ceremony.tell(run, "root", file, data, before)


@command(app, "sign")
def sign(run: Run, file: File, key: Keys = None, folder: Folder = None, passphrase_file: PassphraseFile = None) -> None:
    """Add your signature to a proposed root. Look at it first with `edgeops root show FILE`.

    Example: edgeops root sign root-2.json --key alice.key
    """
    ceremony.sign_file(run, "root", file, key or [], folder, passphrase_file)


@command(app, "publish")
def publish(run: Run, file: File, folder: Folder = None) -> None:
    """Hand a whole root to the manager, which verifies it and sends it to every device; needs the role admin.

    Example: edgeops root publish root-2.json
    """
    _, _, answer = ceremony.publish_file(run, folder, "root", file)
    ceremony.emit(run, answer)


@command(app, "show")
def show_(
    run: Run,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="A proposed root (default: the current one).")] = None,
    folder: Folder = None,
) -> None:
    """Show a root: its version and epoch, the keys of every role, how many must sign, who has signed, whose signatures are wanting;
    of the current one, how many devices have it.

    Example: edgeops root show root-2.json
    """
    here = ceremony.known(run, folder) if file else ceremony.ground(run, folder)
    data = ceremony.read_half(file, "root") if file else here.roots[-1]
    old = ceremony.before(here, "root", data)
    wants = ceremony.wants_of("root", data, old)
    more: dict[str, Any] = {"wanting_of": wants} if file else {"have": ceremony.have(run, here, "root")}
    found, signed = read_root(data), sorted(envelope.signers_of(data, "root"))
    shown: dict[str, Any] = {"fleet": found.fleet, "version": found.version, "epoch": found.epoch, "issued": found.issued}
    roles = {name: {"threshold": role.threshold, "keys": list(role.keys)} for name, role in found.roles.items()}
    rows = [(name, f"{role.threshold} of {len(role.keys)}", ", ".join(role.keys)) for name, role in found.roles.items()]

    def draw() -> None:
        left = {"still": ceremony.wanted(wants) if wants else "nothing wanting" if old else ceremony.UNKNOWN} if file else more
        show.pairs({**shown, "issued": show.when(found.issued), "signed by": signed or "nobody yet", **left})
        show.print_table(("role", "must sign", "keys"), rows)

    run.emit({**shown, "signed_by": signed, "roles": roles, **more}, draw)


def _pair(text: str) -> tuple[str, str]:
    role, found, value = text.partition("=")
    if not found:
        raise Misuse("role-missing", f"{text!r} names no role; write it as ROLE=VALUE, for example release=ci.pub")
    return role, value


def _number(text: str) -> tuple[str, int]:
    role, value = _pair(text)
    if not value.isascii() or not value.isdecimal() or len(value) > 3:
        raise Misuse("bad-threshold", f"{text!r}: how many keys must sign is a whole number, for example {role}=2")
    return role, int(value)
