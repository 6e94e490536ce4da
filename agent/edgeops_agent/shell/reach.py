"""Where the manager can be reached: endpoints with the CAs to trust there, from the newest site document and the last proven one.

A site document is kept under its digest before the record names it. The one before stays as a last resort until the manager has
answered by way of the new one, and the one from enrolment stays for ever: no lost file and no wrong address can strand a device.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgeops.wire import envelope
from edgeops.wire.errors import Rejected, Unfit
from edgeops.wire.root import Site

from ..core.record import Record
from .disk import StateFolder
from .identity import Paths


@dataclass(frozen=True, slots=True)
class Way:
    """One endpoint, the PEM certificates of the CAs its own must come from, and the version of the site that names it."""

    url: str
    cas: str
    site: int


def keep_site(folder: StateFolder, site: bytes) -> None:
    """Keep a verified site document, before the record names it; raises Unfit (disk)."""
    folder.put_document(envelope.digest_of(site, "site"), site)


def adopt(folder: StateFolder, paths: Paths, record: Record) -> Record:
    """The record naming the site document that enrolment left, where it names none yet; raises Unfit (disk)."""
    if record.sites:
        return record
    try:
        _parse(data := paths.files.read(paths.site))
    except (OSError, Rejected):
        return record
    keep_site(folder, data)
    return replace(record, sites=(envelope.digest_of(data, "site"),))


def read_sites(folder: StateFolder, paths: Paths, record: Record) -> tuple[Site, ...]:
    """The site documents that can be read, best first; empty when none is left."""
    found = list(_readable(folder, paths, record))
    proven = found[: len(record.sites)] or found
    return tuple(proven)


def _readable(folder: StateFolder, paths: Paths, record: Record) -> Iterator[Site]:
    for digest in record.sites:
        try:
            data = folder.document(digest)
            if envelope.digest_of(data, "site") == digest:
                yield _parse(data)
        except (Rejected, Unfit):
            continue
    try:
        yield _parse(paths.files.read(paths.site))
    except (OSError, Rejected):
        return


def _parse(data: bytes) -> Site:
    return Site.parse(envelope.contents(data, "site"))


def mqtt_ways(sites: tuple[Site, ...]) -> tuple[Way, ...]:
    """Brokers, in the order to be tried; those for browsers are not for us."""
    urls = [(site, url) for site in sites for url in site.mqtt if url.startswith("mqtts://")]
    return tuple(dict.fromkeys(Way(url, "".join(site.cas), site.version) for site, url in urls))


def https_ways(sites: tuple[Site, ...]) -> tuple[Way, ...]:
    """Managers, in the order to be tried."""
    return tuple(dict.fromkeys(Way(url, "".join(site.cas), site.version) for site in sites for url in site.https))
