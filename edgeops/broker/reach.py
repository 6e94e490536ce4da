"""Ports and readiness: is a port free, does a TLS server with our certificate answer there."""

import errno
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from edgeops.wire.errors import Misuse, Unreachable

from .ports import BrokerPlan

Started = TypeVar("Started")
# Forward secrecy and authenticated encryption; there are none such below TLS 1.2, whatever a listener is told of versions.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_TRIES = 5
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 names to translate, nothing is bound here


def claim_port(host: str, port: int) -> int:
    """The port to listen on: `port`, or a free one for 0. Raises Misuse("port-busy"), Misuse("bad-address")."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if isinstance(error, socket.gaierror) or error.errno != errno.EADDRINUSE:
                message = f"cannot listen on {host}:{port} ({error}); choose an address of this machine"
                raise Misuse("bad-address", message) from None
            message = f"port {port} on {host} is taken by another program; choose another one, or 0 for any free port"
            raise Misuse("port-busy", message) from None
        return int(probe.getsockname()[1])


def with_free_port(plan: BrokerPlan, start: Callable[[int], Started]) -> Started:
    """Call `start` with the port of the plan; for port 0 with free ones until a start succeeds, as others take ports meanwhile.

    Raises Misuse("port-busy" | "bad-address") and the last Unreachable("broker-failed").
    """
    for _ in range(0 if plan.port else _TRIES - 1):
        port = claim_port(plan.host, 0)
        try:
            return start(port)
        except Unreachable as failure:
            if "in use" not in failure.message.lower():
                raise
    return start(claim_port(plan.host, plan.port))


def wait_until_ready(
    host: str, port: int, cert_path: Path, alive: Callable[[], bool], last_lines: Callable[[], str], patience_s: float = 15.0
) -> None:
    """Return once a server presenting exactly our certificate completes a TLS handshake; raises Unreachable("broker-failed")."""
    ours = ssl.PEM_cert_to_DER_cert(_first_pem(cert_path.read_text()))
    deadline = time.monotonic() + patience_s
    while alive() and time.monotonic() < deadline:
        if _certificate_at(_EVERYWHERE.get(host, host), port) == ours:
            return
        time.sleep(0.02)
    what = "did not answer in time" if alive() else "ended right after its start"
    raise Unreachable("broker-failed", f"the broker on {host}:{port} {what}; its last words:\n{last_lines()}")


def _first_pem(text: str) -> str:
    end = "-----END CERTIFICATE-----"
    start = text.index("-----BEGIN CERTIFICATE-----")
    return text[start : text.index(end, start) + len(end)] + "\n"


def _certificate_at(host: str, port: int) -> bytes | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), timeout=2.0) as raw, context.wrap_socket(raw) as secure:
            return secure.getpeercert(binary_form=True)
    except OSError:
        return None
