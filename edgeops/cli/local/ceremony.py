"""Documents that need several holders' signatures: a file that goes from one to the next, and the whole one to the manager.

What is current comes from the manager's folder where there is one, else from the running manager.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeops.manager.files import alone, write_whole
from edgeops.wire import canonical, envelope
from edgeops.wire.errors import EdgeopsError, Misuse, Rejected, Unreachable
from edgeops.wire.keys import Signer
from edgeops.wire.messages import Bundle
from edgeops.wire.root import Root
from edgeops.wire.rotation import read_root, wanting

from .. import context, show
from ..client import Client
from ..frame import Run
from ..session import ready
from .place import Place, find_folder, open_place
from .signers import NOTATION, open_signers

Keys = Annotated[list[str] | None, typer.Option("--key", metavar="KEY", help=f"A key to sign with: {NOTATION}.")]
Folder = Annotated[
    Path | None, typer.Option("--folder", metavar="DIR", help="The manager's folder (default: here, else the context's).")
]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where the document goes while signatures are wanting.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="The document, half-signed or whole.")]
UNKNOWN = "what the current root wants is not known here"
ROLE_OF = {"root": "root", "site": "site", "floor": "release"}


@dataclass(frozen=True, slots=True)
class Ground:
    """The current documents, and the manager's folder if it is at hand."""

    roots: tuple[bytes, ...]
    site: bytes
    floor: bytes | None
    place: Place | None

    @property
    def root(self) -> Root:
        """The current root."""
        return read_root(self.roots[-1])


def ground(run: Run, folder: Path | None) -> Ground:
    """What is current; raises Misuse, Unreachable where neither folder nor manager is at hand."""
    found = find_folder(folder, run.context)
    if found is None:
        client, roots = run.client(), list[bytes]()
        while more := _told(client, "root", len(roots)):
            roots += more
        site, floor = _told(client, "site"), _told(client, "floor")
        return Ground(tuple(roots), site[-1] if site else b"", floor[-1] if floor else None, None)
    place = open_place(found)
    kept = [path.read_bytes() for path in place.layout.all_of("root")]
    floors = [path.read_bytes() for path in place.layout.floors()[-1:]]
    return Ground(tuple(kept), place.layout.newest("site").read_bytes(), floors[-1] if floors else None, place)


def _told(client: Client, kind: str, after: int = 0) -> list[bytes]:
    bundle = Bundle.decode(canonical.encode(client.get(f"/documents/{kind}", after=after)))
    return [data for _, data in bundle.documents]


def signers_for(here: Ground, role: str, keys: Sequence[str], passphrase_file: Path | None) -> list[Signer]:
    """The keys given, else those of the role that lie in the manager's folder and that its root names; raises Misuse("no-keys")."""
    if keys:
        return open_signers(keys, passphrase_file)
    paths = here.place.layout.keys(role) if here.place else []
    found = [one for one in open_signers([str(path) for path in paths], passphrase_file) if one.id in here.root.roles[role].keys]
    if not found:
        raise Misuse("no-keys", f"no {role} key is at hand; give --key ({NOTATION})")
    return found


def lacks(kind: str, data: bytes, root: Root) -> int:
    """How many signatures a document still wants; a new root wants those of the current root's keys and of its own."""
    roots = (root, read_root(data)) if kind == "root" else (root,)
    return wanting(envelope.signers_of(data, kind), roots, ROLE_OF[kind])


def before(here: Ground, kind: str, data: bytes) -> Root | None:
    """The root whose keys must sign: for a root the one before it, None where that is not known here."""
    if kind != "root":
        return here.root if here.roots else None
    version = read_root(data).version - 1
    return next((root for root in map(read_root, here.roots) if root.version == version), None)


def wants_of(kind: str, data: bytes, old: Root | None) -> list[dict[str, Any]]:
    """What a document still wants: how many signatures, by which keys, of which root; a new root is asked as well as the old."""
    asked = [(f"old {kind}" if kind == "root" else "root", old)] if old else []
    if kind == "root" and (made := read_root(data)).version > 1:
        asked.append(("new root", made))
    signed, role = envelope.signers_of(data, kind), ROLE_OF[kind]
    found = [
        {"root": name, "count": wanting(signed, (root,), role), "keys": [one for one in root.roles[role].keys if one not in signed]}
        for name, root in asked
    ]
    return [one for one in found if one["count"]]


def wanted(wants: Sequence[dict[str, Any]]) -> str:
    """The same in words: "wanting: 1 of 5ed84979… (old root), 1 of …"."""
    each = (f"{one['count']} of {', '.join(f'{key[:8]}…' for key in one['keys'])} ({one['root']})" for one in wants)
    return f"wanting: {', '.join(each)}"


def read_half(file: Path, kind: str) -> bytes:
    """A document from its file; raises Misuse("no-file"), Rejected."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise Misuse("no-file", f"there is no file {file}") from None
    envelope.split(data, kind)
    return data


def hand_on(run: Run, here: Ground, kind: str, data: bytes, out: Path | None) -> dict[str, Any] | None:
    """Publish a document that has all signatures, unless it is to go to a file; else write it for the next holder. The answer if
    it was published.
    """
    if out is None and not lacks(kind, data, here.root):
        return publish(run, here.place, kind, data)
    file = out or Path(f"{kind}.half-signed.json")
    write_whole(file, data)
    tell(run, kind, file, data, before(here, kind, data))
    return None


def sign_file(run: Run, kind: str, file: Path, keys: Sequence[str], folder: Path | None, passphrase_file: Path | None) -> None:
    """Add signatures to a document in a file and say what it still wants."""
    data = read_half(file, kind)
    here = known(run, folder)
    if not here.roots and not keys:
        raise Misuse("no-keys", f"no key is at hand; give --key ({NOTATION})")
    signers = open_signers(keys, passphrase_file) if keys else signers_for(here, ROLE_OF[kind], (), passphrase_file)
    signed = envelope.countersign(data, kind, signers)
    write_whole(file, signed)
    tell(run, kind, file, signed, before(here, kind, signed))


def known(run: Run, folder: Path | None) -> Ground:
    """What is current, as far as it is known here: nothing on a holder's own machine, offline."""
    try:
        return ground(run, folder)
    except (Misuse, Unreachable):
        return Ground((), b"", None, None)


def tell(run: Run, kind: str, file: Path, data: bytes, old: Root | None) -> None:
    """Say who has signed, whose signatures are wanting, and what comes next."""
    signed, wants = sorted(envelope.signers_of(data, kind)), wants_of(kind, data, old)
    count = max((one["count"] for one in wants), default=0) if wants or old else None
    left = "; ".join(([wanted(wants)] if wants else []) + ([] if old else [UNKNOWN])) or "every signature it needs"
    said = f"{file}: signed by {', '.join(signed) or 'nobody'}; {left}\nnext:  {after(kind, file, wants)}"
    report = {"file": str(file), "kind": kind, "signed_by": signed, "wanting": count, "wanting_of": wants, "published": False}
    run.emit(report, said)


def after(kind: str, file: Path, wants: Sequence[dict[str, Any]]) -> str:
    """The next command for a document in a file."""
    name = shlex.quote(str(file))
    return f"edgeops {kind} sign {name} --key KEY" if wants else f"edgeops {kind} publish {name}"


def publish_file(run: Run, folder: Path | None, kind: str, file: Path) -> tuple[Ground, bytes, dict[str, Any]]:
    """Publish a document from its file; raises Rejected("threshold") that says whose signatures are wanting and what to do."""
    here, data = ground(run, folder), read_half(file, kind)
    wants = wants_of(kind, data, before(here, kind, data))
    if wants:
        raise Rejected("threshold", f"{file}: {wanted(wants)}; next: {after(kind, file, wants)}")
    return here, data, publish(run, here.place, kind, data)


def have(run: Run, here: Ground, kind: str) -> str:
    """How many devices have the current document, as the running manager counts."""
    try:
        client = client_of(run, here.place) if here.place else run.client()
        try:
            counted = client.get("/documents")
        finally:
            client.close()
    except EdgeopsError as error:
        return f"unknown: {error.message}"
    return f"{counted['have'][kind]} of {counted['devices']} devices"


def publish(run: Run, place: Place | None, kind: str, sealed: bytes) -> dict[str, Any]:
    """Hand a document to the manager: to the one that runs, else to the folder, from which the next start sends it to devices."""
    if place is None:
        return dict(run.client().post(f"/documents/{kind}", {"envelope": sealed.decode()}))
    try:
        with alone(place.layout.lock):
            return _publish_here(place, kind, sealed)
    except Misuse as error:
        if error.reason != "already-running":
            raise
    client = client_of(run, place)
    try:
        return dict(client.post(f"/documents/{kind}", {"envelope": sealed.decode()}))
    finally:
        client.close()


def _publish_here(place: Place, kind: str, sealed: bytes) -> dict[str, Any]:
    import time

    from edgeops.manager import documents
    from edgeops.manager.hub import open_hub

    hub = open_hub(place.layout.root, lambda: int(time.time()))
    try:
        return documents.publish(hub, "local", kind, sealed)
    finally:
        hub.close()


def client_of(run: Run, place: Place) -> Client:
    """A client of the manager that runs in this folder: by the context asked for, the current one if it is this manager's, else
    the one that `init` made with it (an admin's).
    """
    contexts, ca = context.load(), place.layout.certificate("ca").read_bytes()
    ours = {one.name: one for one in contexts.known.values() if _reads(Path(one.ca)) == ca}
    mine = ours.get(contexts.current) or ours.get(place.settings.fleet) or next(iter(ours.values()), None)
    return Client(ready(contexts.pick(run.context) if run.context or mine is None else mine))


def _reads(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def said(answer: dict[str, Any]) -> str:
    """What publishing brought about, in words."""
    kind = answer["kind"]
    lines = [f"{kind} {answer['version']} is published; {answer['have'][kind]} of {answer['devices']} devices have it so far"]
    lines += [f"sign anew: the {name} document, with a key that the root names" for name in answer["stale"]]
    if answer["unsigned_releases"]:
        names = ", ".join(answer["unsigned_releases"])
        lines.append(f"signed by removed keys: {names}; run `edgeops release sign` and `edgeops release upload` for each again")
    return "\n".join(lines)


def emit(run: Run, answer: dict[str, Any]) -> None:
    """Print what publishing brought about."""
    run.emit({**answer, "published": True}, lambda: print(show.safe(said(answer))))
