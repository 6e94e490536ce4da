"""What the rest of the manager sees of a broker: a plan going in, a running broker coming out."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Kind = Literal["mosquitto", "built-in", "external"]
RELOADED = "Reloaded"


@dataclass(frozen=True, slots=True)
class BrokerPlan:
    """How to start a broker: a private folder for its files, the address (port 0 = any free one) and PEM files.

    `ca_path` holds every CA whose client certificates are welcome, `crl_path` (optional) one current revocation list per such CA.
    With `wss_port` and `passwords_path` browsers may connect by secure WebSocket, with a password of that file and no certificate.
    """

    folder: Path
    host: str
    port: int
    ca_path: Path
    cert_path: Path
    key_path: Path
    crl_path: Path | None = None
    wss_port: int | None = None
    passwords_path: Path | None = None


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

    @property
    def can_silence(self) -> bool:
        """Whether `reload` makes the broker refuse a revoked certificate: not where somebody else runs it."""

    def reload(self, revoked: Collection[str] = ()) -> None:
        """Read revocation list and passwords again; from now on the devices named in `revoked` can say and hear nothing.

        Returns once the broker has done so. One that refuses the CONNECT of a name in `revoked` ends that name's session before it
        answers. Raises Unreachable("broker-reload") when it does not come to it in time.
        """

    def alive(self) -> bool:
        """True while its process runs."""
