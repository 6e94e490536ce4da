"""The CAs of the fleet. Which one is used for what follows from the site document alone, so that publishing it is the one switch.

The first CA it lists signs the server's certificate, the last one devices' certificates; while a CA is replaced it lists both.
A CA that it no longer lists is welcome from devices until the last certificate it can have signed has expired.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from edgeops.wire.errors import Misuse
from edgeops.wire.root import Site

from . import pki
from .files import write_changed, write_whole
from .layout import Layout
from .pki import Pair
from .settings import Settings

DAY_S = 86_400
MANAGER_DAYS, LEFT_DAYS = 3650, 30


@dataclass(frozen=True, slots=True)
class Authority:
    """The CA of the server's certificate, the one that signs devices' certificates, and all whose certificates are welcome."""

    serving: Pair
    issuing: Pair
    welcome: tuple[Pair, ...]


def read_authority(layout: Layout, site: Site, now: int, device_days: int) -> Authority:
    """The CAs as this site document wants them; raises Misuse("unknown-ca" | "bad-pki")."""
    held = {pair.pin: pair for pair in _pairs(layout)}
    pins = [pki.pin_of(pem) for pem in site.cas]
    listed = [held[pin] for pin in pins if pin in held]
    if not listed or pins[0] not in held:
        raise Misuse("unknown-ca", f"the site document begins with a CA whose key is not in {layout.crl.parent}; restore a backup")
    lasting = site.issued + device_days * DAY_S > now
    left = [pair for pin, pair in held.items() if pin not in (*pins, *_refused(layout)) and lasting]
    return Authority(listed[0], listed[-1], (*listed, *left))


def arrange(layout: Layout, settings: Settings, site: Site, authority: Authority, now: int) -> bool:
    """Make the files that broker and HTTPS server read fit: bundles, server's and manager's certificate. Whether any changed.

    Each is made from the keys of the CAs, so a kill between any two of them is healed by doing it again.
    """
    trusted = b"".join(pair.certificate_pem for pair in authority.welcome)
    changed = write_changed(layout.certificate("ca"), "".join(site.cas).encode())
    changed |= write_changed(layout.clients, trusted)
    names = set(pki.server_names((*settings.addresses, settings.bind)))
    if not _is_good(layout, "server", (authority.serving,), now) or names != _names(layout.certificate("server")):
        _certify(layout, "server", pki.make_server(authority.serving, (*settings.addresses, settings.bind), now))
        changed = True
    if not _is_good(layout, "manager", authority.welcome, now):
        _certify(layout, "manager", pki.make_client(authority.issuing, "manager", now, MANAGER_DAYS))
        changed = True
    return changed


def new_ca(layout: Layout, settings: Settings, now: int) -> Pair:
    """A new CA beside the present ones; it is used once a site document lists it."""
    for pair in _pairs(layout):  # the bundle in ca.crt will change: each certificate is kept in a file of its own
        write_changed(layout.certificate(f"ca-{pair.pin[:8]}"), pair.certificate_pem)
    made = pki.make_ca(settings.fleet, now)
    write_whole(layout.tls_key(f"ca-{made.pin[:8]}"), made.key_pem, 0o600)
    write_whole(layout.certificate(f"ca-{made.pin[:8]}"), made.certificate_pem)
    return made


def refuse(layout: Layout, pins: Iterable[str]) -> None:
    """Let these CAs be welcome from nobody once the site document does not list them any more."""
    write_whole(layout.refused, "".join(f"{pin}\n" for pin in sorted({*pins, *_refused(layout)})).encode())


def _refused(layout: Layout) -> list[str]:
    return layout.refused.read_text().split() if layout.refused.exists() else []


def _pairs(layout: Layout) -> Iterator[Pair]:
    """Each CA key that lies here with its certificate, wherever that is."""
    folder = layout.crl.parent
    certificates = [one for path in sorted(folder.glob("ca*.crt")) for one in _load(path)]
    for path in sorted(folder.glob("ca*.key")):
        key = pki.load_key(path.read_bytes())
        if certificate := next((one for one in certificates if one.public_key() == key.public_key()), None):
            yield Pair(certificate, key)


def _load(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError as error:
        raise Misuse("bad-pki", f"{path} cannot be read: {error}; restore pki/ from a backup") from None


def _is_good(layout: Layout, name: str, cas: tuple[Pair, ...], now: int) -> bool:
    """Whether a certificate is there with its key, of one of these CAs, and far from its end."""
    try:
        pair = Pair.load(layout.certificate(name).read_bytes(), layout.tls_key(name).read_bytes())
    except (OSError, Misuse):
        return False
    if pair.key.public_key() != pair.certificate.public_key():
        return False
    lasting = pair.certificate.not_valid_after_utc.timestamp() > now + LEFT_DAYS * DAY_S
    return lasting and any(pki.is_signed_by(pair.certificate, ca) for ca in cas)


def _names(path: Path) -> set[str]:
    held = x509.load_pem_x509_certificate(path.read_bytes())
    return {str(name.value) for name in held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value}


def _certify(layout: Layout, name: str, pair: Pair) -> None:
    write_whole(layout.tls_key(name), pair.key_pem, 0o600)
    write_whole(layout.certificate(name), pair.certificate_pem)
