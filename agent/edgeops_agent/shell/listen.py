"""The local endpoint's listening sockets: loopback TCP and a Unix socket, opened once by the supervisor, inherited by workers."""

import contextlib
import errno
import socket
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from edgeops.wire.errors import Misuse

from .journal import say

BACKLOG = 128
PATIENCE_S = 3.0


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
        """Bind and listen; raises Misuse("port-busy" | "cannot-listen" | "socket-busy" | "socket-path").

        A disk that takes no file leaves TCP.
        """
        tcp = _listen_tcp(host, port)
        try:
            unix = _listen_unix(path) if path else None
            return Listeners(tcp, unix, path if unix else None)
        except Misuse:
            tcp.close()
            raise

    def close(self) -> None:
        """Close all and remove the Unix socket."""
        for each in self.sockets:
            each.close()
        if self.path:
            with contextlib.suppress(OSError):
                self.path.unlink()


def _listen_tcp(host: str, port: int) -> socket.socket:
    """A port that is busy may still be held by the last worker of an agent that was killed a moment ago."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return socket.create_server((host, port), backlog=BACKLOG)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                message = f"cannot listen on {host}:{port}: {error.strerror}; choose another --host or --port"
                raise Misuse("cannot-listen", message) from None
            if time.monotonic() > until:
                raise Misuse("port-busy", f"{host}:{port} is in use by another program; choose another --port") from None
        time.sleep(0.05)


def _listen_unix(path: Path) -> socket.socket | None:
    """A socket file nobody answers on is replaced; anything else that lies there is not touched. None when the disk refuses."""
    try:
        return _bound(path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise _no_path(path, error) from None
        say("disk", f"nobody can call at {path}, TCP only: {error.strerror}", "error", unix=str(path))
        return None


def _bound(path: Path) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            _check_stale(path)
            path.unlink()
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(str(path))
        path.chmod(0o660)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _check_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as error:
            raise _no_path(path, error) from None
    raise Misuse("socket-busy", f"another program answers on {path}; stop it first or choose another --socket")


def _no_path(path: Path, error: OSError) -> Misuse:
    return Misuse("socket-path", f"cannot listen on {path}: {error.strerror or error}; choose another (short) path with --socket")
