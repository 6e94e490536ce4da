"""What the broker is told of devices that are out: the revocation list of each CA, and the names that may say and hear nothing."""

from pathlib import Path

from cryptography import x509
from sqlalchemy import delete, select

from edgeops.store import rows
from edgeops.store.tables import devices, revocations

from . import pki
from .files import write_whole
from .hub import Hub

# `clone`: two devices speak under one name, and until somebody has looked neither is heard.
OUT = ("revoked", "decommissioned", "clone")
HOUR_S, DAY_S = 3_600, 86_400
_END = b"-----END X509 CRL-----\n"


def shut_out(hub: Hub) -> dict[str, str]:
    """The names of all devices that may not speak, and why."""
    with hub.store.read() as tx:
        found = tx.execute(select(devices.c.id, devices.c.status).where(devices.c.status.in_(OUT)))
        return {row.id: row.status for row in found}


def write_crl(hub: Hub) -> None:
    """Write the revocation lists from the database; alone among writers, so that an older list never replaces a newer one.

    Nothing is written while the lists there say it all: brokers keep every list they have read, and use the one in force latest.
    """
    now, welcome = hub.now(), hub.papers.authority.welcome
    with hub.store.write() as tx:
        tx.execute(delete(revocations).where(revocations.c.expires <= now))
        serials = {int(row["serial"], 16) for row in rows.find(tx, revocations) if not row["live"]}
        held = _held(hub.layout.crl)
        if len(held) == len(welcome) and all(_says(held, ca, serials, now) for ca in welcome):
            return
        newest = max((int(one.last_update_utc.timestamp()) for one in held), default=0)
        # Two lists in force since the same second would leave it to chance which one a broker uses.
        since = max(now - HOUR_S, min(newest + 1, now))
        write_whole(hub.layout.crl, b"".join(pki.make_crl(ca, serials, now, since) for ca in welcome))


def _held(path: Path) -> list[x509.CertificateRevocationList]:
    """The lists in the file; none where it is missing or broken, as it is made anew then."""
    try:
        return [x509.load_pem_x509_crl(part + _END) for part in path.read_bytes().split(_END)[:-1]]
    except (OSError, ValueError):
        return []


def _says(held: list[x509.CertificateRevocationList], ca: pki.Pair, serials: set[int], now: int) -> bool:
    """Whether one of these lists is of this CA, in force for long yet, and names these certificates and no others."""
    of_ca = next((one for one in held if one.is_signature_valid(ca.certificate.public_key())), None)  # type: ignore[arg-type]
    if of_ca is None or of_ca.next_update_utc is None:
        return False
    fresh = of_ca.last_update_utc.timestamp() <= now < of_ca.next_update_utc.timestamp() - pki.CRL_DAYS * DAY_S / 2
    return fresh and {one.serial_number for one in of_ca} == serials
