"""TLS for devices that may not know what time it is: the chain counts, dates only against what was signed."""

import ssl
from typing import Any

from edgeops.wire.errors import Unreachable

_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which the ssl module has no name for


def timeless(ca: str) -> ssl.SSLContext:
    """A client's context that trusts the PEM certificates in `ca` only, at any date; raises ssl.SSLError.

    A Raspberry Pi starts in 1970. Whoever uses this checks expiry against a time that has passed for sure.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= _NO_CHECK_TIME
    context.load_verify_locations(cadata=ca)
    return context


def check_expiry(sock: Any, least: int) -> None:
    """Raise Unreachable("server-expired") when the other side's certificate ended before `least`, which has passed for sure."""
    shown = sock.getpeercert() if isinstance(sock, ssl.SSLSocket) else None
    if shown and ssl.cert_time_to_seconds(str(shown["notAfter"])) < least:
        raise Unreachable("server-expired", f"the server's certificate ended on {shown['notAfter']}, and later times were signed")
