"""TLS for a device that may have no clock: certificates are verified, their dates are not held against the wall clock."""

import ssl

_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which the ssl module has no name for


def timeless(ca: str) -> ssl.SSLContext:
    """A client's context that trusts the PEM certificates in `ca` only, at any date; raises ssl.SSLError.

    A Raspberry Pi starts in 1970. Whoever uses this checks expiry against a time that has passed for sure.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= _NO_CHECK_TIME
    context.load_verify_locations(cadata=ca)
    return context
