"""The documents every device must have (chain of roots, site, floor) and the keys that go with them: read whole, swapped whole.

Files in documents/ are the truth, named by kind and version; a document counts once its file is there.
"""

import functools
from dataclasses import dataclass

from edgeops.wire import envelope
from edgeops.wire.errors import EdgeopsError, Misuse
from edgeops.wire.keys import Signer, sha256
from edgeops.wire.root import Root
from edgeops.wire.rotation import read_root
from edgeops.wire.trust import Trust, current_root, pin_chain

from .authority import Authority, read_authority
from .layout import Layout
from .settings import Settings
from .setup import load_signer
from .site import read_floor, read_site

Document = tuple[str, bytes]
# Asked for each release of each order; a release has tens of kilobytes.
_signers_of = functools.lru_cache(512)(envelope.signers_of)
# Asked for each report of each device.
_root = functools.lru_cache(64)(read_root)


@dataclass(frozen=True, slots=True)
class Papers:
    """What is current. `trust` is that of a device which has all of it, `online` the key the root names, held in memory."""

    roots: tuple[bytes, ...]
    site: bytes
    floor: bytes | None
    trust: Trust
    root: Root
    online: Signer
    authority: Authority

    @property
    def root_pin(self) -> str:
        """The digest of the current root, as enrolment tokens name it."""
        return sha256(envelope.split(self.roots[-1], "root")[0])

    @property
    def stale(self) -> tuple[str, ...]:
        """The documents that must be signed anew: a key that the root no longer names has signed them."""
        signed = (("site", self.site), ("floor", self.floor))
        return tuple(kind for kind, data in signed if data and not self.is_believed(kind, data))

    def is_believed(self, kind: str, data: bytes) -> bool:
        """Whether a device with the current root would believe this site, floor or release, were it new to it."""
        role = self.root.roles["site" if kind == "site" else "release"]
        signed = _signers_of(data, kind)
        return signed <= set(role.keys) and len(signed) >= role.threshold

    def epoch_of(self, version: int) -> int:
        """The epoch of a root by its version; a version there is none of counts as the nearest."""
        return _root(self.roots[min(max(version, 1), len(self.roots)) - 1]).epoch

    def after(self, has: dict[str, int]) -> list[Document]:
        """What somebody who has these versions lacks, in the order it is to be read; stale documents would be refused."""
        found: list[Document] = [("root", data) for data in self.roots[max(1, has.get("root", 1)) :]]
        if self.trust.site_version > has.get("site", 0) and "site" not in self.stale:
            found.append(("site", self.site))
        if self.floor and self.trust.floor_version > has.get("floor", 0) and "floor" not in self.stale:
            found.append(("floor", self.floor))
        return found


class Shelf:
    """Holds the current papers, for all threads: swapping them is one step, and only a writer of the store does it."""

    def __init__(self, papers: Papers) -> None:
        self.papers = papers


def read_papers(layout: Layout, settings: Settings, now: int) -> Papers:
    """The papers in the folder; raises Misuse (no-document, broken-chain, no-key, online-key, unknown-ca, bad-pki)."""
    roots, site = [path.read_bytes() for path in layout.all_of("root")], layout.newest("site").read_bytes()
    floors = layout.floors()
    floor = floors[-1].read_bytes() if floors else None
    try:
        trust = pin_chain(roots, settings.fleet, envelope.digest_of(roots[0], "root"), "manager", 1)
    except EdgeopsError as error:
        text = f"the roots in {layout.document('root-1').parent} do not follow from each other ({error}); restore a backup"
        raise Misuse("broken-chain", text) from None
    return assemble(layout, settings, trust, tuple(roots), site, floor, now)


def assemble(
    layout: Layout, settings: Settings, trust: Trust, roots: tuple[bytes, ...], site: bytes, floor: bytes | None, now: int
) -> Papers:
    """Papers of documents that were believed one by one; `trust` needs to know the root only. Raises Misuse as `read_papers`."""
    root, place, least = current_root(trust), read_site(site), read_floor(floor)
    whole = Trust(
        trust.fleet, trust.device, trust.incarnation, trust.root, place.version, floor_version=least.version, floors=least.floors
    )
    authority = read_authority(layout, place, now, settings.certificate_days)
    return Papers(roots, site, floor, whole, root, online_signer(layout, root), authority)


def online_signer(layout: Layout, root: Root) -> Signer:
    """The key in the folder that this root names for the online role; raises Misuse("no-key" | "online-key")."""
    role, problems = root.roles["online"], []
    if role.threshold > 1:
        raise Misuse("online-key", f"root {root.version} asks for {role.threshold} online keys; a manager signs with one")
    for path in layout.keys("online"):
        try:
            signer = load_signer(path)
        except Misuse as error:
            problems.append(error)
            continue
        if signer.id in role.keys:
            return signer
    if problems:
        raise problems[0]
    wanted = ", ".join(role.keys)
    text = f"no online key in {layout.key('online').parent} is one that root {root.version} names ({wanted})"
    raise Misuse("online-key", f"{text}; put it there, or restore a backup")
