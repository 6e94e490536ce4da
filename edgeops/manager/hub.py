"""What every part of the manager needs: store, objects, settings, documents, the online key, the CA and the clock."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edgeops.store import Blobs, Store, open_store
from edgeops.wire import envelope
from edgeops.wire.errors import Misuse
from edgeops.wire.keys import Signer, sha256
from edgeops.wire.root import Root
from edgeops.wire.trust import Trust, current_root

from .layout import Layout
from .pki import Pair
from .settings import Settings, load
from .setup import load_signer

Clock = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Hub:
    """The open manager. `now` gives Unix seconds."""

    layout: Layout
    settings: Settings
    store: Store
    blobs: Blobs
    online: Signer
    ca: Pair
    root_document: bytes
    first_root: bytes
    site_document: bytes
    now: Clock

    @property
    def root(self) -> Root:
        """The current root."""
        return current_root(self.trust)

    @property
    def trust(self) -> Trust:
        """The root as the trust rules want it, for verifying what publishers send."""
        return Trust(self.settings.fleet, "manager", 1, self.root_document)

    @property
    def root_pin(self) -> str:
        """The digest of the first root, as enrolment tokens name it."""
        return sha256(envelope.split(self.first_root, "root")[0])

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
    root, site = layout.newest("root").read_bytes(), layout.newest("site").read_bytes()
    online = load_signer(layout.key("online"))
    hub = Hub(
        layout, settings, open_store(layout.database), Blobs(layout.blobs), online,
        Pair.load(layout.certificate("ca").read_bytes(), layout.tls_key("ca").read_bytes()),
        root, layout.document("root-1").read_bytes(), site, now,
    )  # fmt: skip
    if online.id not in hub.root.roles["online"].keys:
        hub.close()
        raise Misuse("online-key", f"the online key {online.id} is not in the current root; sign a new root or restore the key")
    return hub
