"""Asking a broker from outside who gets in: one bare MQTT 3.1.1 CONNECT with a certificate, and what became of it."""

import contextlib
import socket
import ssl
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeops.wire.errors import Unreachable

Answer = Literal["accepted", "refused", "revoked", "closed"]
_CLEAN_SESSION = 2
_KEEPALIVE_S = 10
_CONNACK = 0x20


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who knocks: the certificate's common name, certificate and private key (PEM)."""

    name: str
    certificate: bytes
    key: bytes


def knock(host: str, port: int, ca_path: Path, visitor: Visitor, patience_s: float = 3.0) -> Answer:
    """Connect as `visitor`, leave at once, and say how the broker took it.

    `accepted` and `refused` are its CONNACK, `revoked` the TLS alert of that name, `closed` every other end. Since a client id
    has one session, `accepted` also means that an older session of the name is over. Raises Unreachable("broker-silent").
    """
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(ca_path))
    with _on_disk(visitor) as (certificate, key):
        context.load_cert_chain(certificate, key)
    try:
        with (
            socket.create_connection((host, port), timeout=patience_s) as raw,
            context.wrap_socket(raw, server_hostname=host) as secure,
        ):
            secure.sendall(_connect(visitor.name))
            return _answer(secure)
    except TimeoutError:
        raise Unreachable("broker-silent", f"the broker on {host}:{port} did not answer within {patience_s:.0f} s") from None
    except ssl.SSLError as error:
        return "revoked" if "CERTIFICATE_REVOKED" in _reason(error) else "closed"
    except ConnectionRefusedError:
        raise Unreachable("broker-silent", f"nobody listens on {host}:{port}") from None
    except OSError:
        return "closed"


def _answer(secure: ssl.SSLSocket) -> Answer:
    head = secure.recv(4)
    if len(head) < 4 or head[0] != _CONNACK:
        return "closed"
    if head[3]:
        return "refused"
    with contextlib.suppress(OSError):
        secure.sendall(b"\xe0\x00")
    return "accepted"


def _connect(name: str) -> bytes:
    body = b"\x00\x04MQTT\x04" + struct.pack("!BHH", _CLEAN_SESSION, _KEEPALIVE_S, len(name)) + name.encode()
    return bytes([0x10, len(body)]) + body


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "").upper().replace(" ", "_")


@contextlib.contextmanager
def _on_disk(visitor: Visitor) -> Iterator[tuple[Path, Path]]:
    """The ssl module reads files only: a private folder, gone before the first byte is sent."""
    with tempfile.TemporaryDirectory(prefix="edgeops-") as folder:
        certificate, key = Path(folder, "crt"), Path(folder, "key")
        certificate.write_bytes(visitor.certificate)
        key.touch(mode=0o600)
        key.write_bytes(visitor.key)
        yield certificate, key
