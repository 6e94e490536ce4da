"""What every part of the manager needs: store, objects, settings, the current documents with their keys, and the clock."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgeops.store import Blobs, Store, open_store
from edgeops.wire.keys import Signer
from edgeops.wire.root import Root
from edgeops.wire.trust import Trust

from .layout import Layout
from .papers import Papers, Shelf, read_papers
from .pki import Pair
from .settings import Settings, load
from .timekeeper import Timekeeper

Clock = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Hub:
    """The open manager. `now` gives Unix seconds. What `shelf` holds may be replaced at any time: who needs two of its things
    to fit together takes `papers` once.
    """

    layout: Layout
    settings: Settings
    store: Store
    blobs: Blobs
    shelf: Shelf
    now: Clock
    timekeeper: Timekeeper = field(default_factory=Timekeeper)

    @property
    def papers(self) -> Papers:
        """The current documents and keys."""
        return self.shelf.papers

    @property
    def root(self) -> Root:
        """The current root."""
        return self.papers.root

    @property
    def trust(self) -> Trust:
        """What a device with all documents believes, for verifying what publishers send."""
        return self.papers.trust

    @property
    def online(self) -> Signer:
        """The key that the current root names for the online role."""
        return self.papers.online

    @property
    def root_pin(self) -> str:
        """The digest of the current root, as enrolment tokens name it."""
        return self.papers.root_pin

    @property
    def first_root(self) -> bytes:
        """Root version 1, where the chain begins."""
        return self.papers.roots[0]

    @property
    def root_document(self) -> bytes:
        """The current root."""
        return self.papers.roots[-1]

    @property
    def site_document(self) -> bytes:
        """The newest site document."""
        return self.papers.site

    @property
    def ca(self) -> Pair:
        """The CA of the server's certificate, as enrolment tokens name it."""
        return self.papers.authority.serving

    @property
    def issuer(self) -> Pair:
        """The CA that signs devices' certificates."""
        return self.papers.authority.issuing

    def with_settings(self, settings: Settings) -> "Hub":
        """The same hub with other settings, for ports that became known."""
        return replace(self, settings=settings)

    def close(self) -> None:
        """Close the database."""
        self.store.close()


def open_hub(folder: Path, now: Clock) -> Hub:
    """Open the manager in `folder`; raises Misuse when it is not whole."""
    layout = Layout(folder)
    settings = load(layout.settings)
    papers = read_papers(layout, settings, now())
    return Hub(layout, settings, open_store(layout.database), Blobs(layout.blobs), Shelf(papers), now)
