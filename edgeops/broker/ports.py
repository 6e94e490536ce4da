"""What the rest of the manager sees of a broker: a plan going in, a running broker coming out."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Kind = Literal["mosquitto", "built-in", "external"]


@dataclass(frozen=True, slots=True)
class BrokerPlan:
    """How to start a broker: a private folder for its files, the address (port 0 = any free one) and PEM files.

    `ca_path` holds every CA whose client certificates are welcome, `crl_path` (optional) one current revocation list per such CA.
    """

    folder: Path
    host: str
    port: int
    ca_path: Path
    cert_path: Path
    key_path: Path
    crl_path: Path | None = None


class RunningBroker(Protocol):
    """A broker that accepts TLS connections right now."""

    @property
    def host(self) -> str:
        """The address it was bound to."""

    @property
    def port(self) -> int:
        """The port it really listens on."""

    @property
    def kind(self) -> Kind:
        """Which broker it is."""

    def stop(self) -> None:
        """Stop it and wait until its processes are gone; a second call does nothing."""

    def acl_denied(self) -> int:
        """How many publishes, subscriptions and last wills were refused since the start."""

    def reload(self, revoked: Collection[str] = ()) -> None:
        """Read the revocation list again and cut off the live connections of the devices named in `revoked`."""

    def alive(self) -> bool:
        """True while its process runs."""
