"""The local endpoint's listening sockets: loopback TCP and a Unix socket, opened once by the supervisor, inherited by workers."""

import contextlib
import socket
from dataclasses import dataclass
from pathlib import Path

from edgeops.wire.errors import Misuse

BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Listeners:
    """Bound, listening sockets."""

    tcp: socket.socket
    unix: socket.socket | None
    path: Path | None

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """All of them."""
        return (self.tcp, self.unix) if self.unix else (self.tcp,)

    @property
    def port(self) -> int:
        """The TCP port really bound."""
        return int(self.tcp.getsockname()[1])

    @staticmethod
    def open(host: str, port: int, path: Path | None) -> "Listeners":
        """Bind and listen; raises Misuse("port-busy")."""
        try:
            tcp = socket.create_server((host, port), backlog=BACKLOG)
        except OSError as error:
            raise Misuse("port-busy", f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from None
        unix = None
        if path is not None:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            unix = socket.socket(socket.AF_UNIX)
            unix.bind(str(path))
            path.chmod(0o660)
            unix.listen(BACKLOG)
        return Listeners(tcp, unix, path)

    def close(self) -> None:
        """Close all and remove the Unix socket."""
        for each in self.sockets:
            each.close()
        if self.path:
            self.path.unlink(missing_ok=True)
