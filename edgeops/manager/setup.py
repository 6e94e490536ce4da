"""Making a new manager: keys, CA, first root and site documents, database, settings, the first admin token."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeops.broker.reach import claim_port
from edgeops.store import Blobs, audit, open_store
from edgeops.wire.envelope import seal
from edgeops.wire.errors import Misuse
from edgeops.wire.keys import Signer, private_pem, signer_from_pem
from edgeops.wire.root import ROLES, Role, Root

from . import pki, tokens
from .files import write_whole
from .layout import Layout
from .settings import Settings, dump, settings_from
from .site import first_site

ADMIN = "admin"
MANAGER_DAYS = 3650


@dataclass(frozen=True, slots=True)
class Setup:
    """What `initialise` made: where, how to reach it, and the admin token, which is shown once."""

    folder: Path
    fleet: str
    url: str
    ca: Path
    admin_token: str


def initialise(folder: Path, fleet: str, addresses: Sequence[str], now: int, settings: Settings | None = None) -> Setup:
    """Create everything in `folder`, or nothing; `now` is Unix seconds.

    Raises Misuse("already-initialised" | "folder-in-use" | "setting-invalid"). Other files in the folder are left alone.
    """
    layout = Layout(folder)
    check_free(layout)
    chosen = replace(settings or Settings(), fleet=fleet, addresses=tuple(addresses))
    chosen = replace(chosen, https_port=_port(chosen, chosen.https_port), mqtt_port=_port(chosen, chosen.mqtt_port))
    settings_from(asdict(chosen))
    made_folder = not folder.exists()
    try:
        return _make(layout, chosen, now)
    except BaseException:
        for path in layout.own:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if made_folder and folder.exists():
            shutil.rmtree(folder)
        raise


def check_free(layout: Layout) -> None:
    """Raise Misuse("already-initialised" | "folder-in-use") where a new manager would meet an old one's files."""
    if layout.settings.exists():
        raise Misuse("already-initialised", f"{layout.root} already holds a manager; choose another folder")
    taken = [path.name for path in layout.own if path.exists()]
    if taken:
        text = f"{layout.root} holds {', '.join(taken)} but no settings; choose another folder, or move them away"
        raise Misuse("folder-in-use", text)


def _make(layout: Layout, chosen: Settings, now: int) -> Setup:
    folder, fleet = layout.root, chosen.fleet
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("keys", "pki", "documents"):
        (folder / name).mkdir(mode=0o700)
    private = {role: Ed25519PrivateKey.generate() for role in ROLES}
    for role, key in private.items():
        write_whole(layout.key(role), private_pem(key), 0o600)
    signers = {role: Signer.of(key) for role, key in private.items()}
    ca = _write_pki(layout, chosen, now)
    write_whole(layout.document("root-1"), first_root(fleet, signers, now))
    write_whole(layout.document("site-1"), first_site(chosen, ca.certificate_pem.decode(), signers["site"], now))
    Blobs(layout.blobs)
    store = open_store(layout.database)
    try:
        with store.write() as tx:
            token = tokens.issue(tx, ADMIN, "admin", now)
            audit.write(tx, now, "setup", "initialise", fleet)
    finally:
        store.close()
    write_whole(layout.settings, dump(chosen).encode(), 0o600)
    return Setup(folder, fleet, f"https://{chosen.addresses[0]}:{chosen.https_port}", layout.certificate("ca"), token)


def first_root(fleet: str, signers: dict[str, Signer], now: int) -> bytes:
    """Root version 1 with one key a role."""
    keys = {signer.id: signer.public for signer in signers.values()}
    roles = {role: Role((signers[role].id,), 1) for role in ROLES}
    return seal("root", Root(fleet, 1, 0, now, keys, roles).payload(), [signers["root"]])


def load_signer(path: Path) -> Signer:
    """An Ed25519 key from PKCS8 PEM without a passphrase; raises Misuse("no-key" | "bad-key" | "passphrase-needed")."""
    try:
        pem = path.read_bytes()
    except FileNotFoundError:
        raise Misuse("no-key", f"there is no key {path}; restore it or run `edgeops init`") from None
    return signer_from_pem(pem, str(path))


def _port(settings: Settings, port: int) -> int:
    # The site document names the ports, so a free one must be chosen now and kept.
    return port or claim_port(settings.bind, 0)


def _write_pki(layout: Layout, settings: Settings, now: int) -> pki.Pair:
    ca = pki.make_ca(settings.fleet, now)
    server = pki.make_server(ca, (*settings.addresses, settings.bind), now)
    manager = pki.make_client(ca, "manager", now, MANAGER_DAYS)
    for name, pair in (("ca", ca), ("server", server), ("manager", manager)):
        write_whole(layout.tls_key(name), pair.key_pem, 0o600)
        write_whole(layout.certificate(name), pair.certificate_pem)
    write_whole(layout.clients, ca.certificate_pem)
    write_whole(layout.crl, pki.make_crl(ca, (), now))
    return ca
