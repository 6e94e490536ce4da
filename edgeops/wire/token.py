"""The enrolment token: one string a person pastes on a device. It names the manager, the device, a one-time secret and two pins."""

import base64
import binascii
from dataclasses import dataclass

from . import canonical
from .errors import Misuse, Rejected
from .fields import HEX64, ID, Fields
from .root import URL

PREFIX = "edgeops1."


@dataclass(frozen=True, slots=True)
class Token:
    """`secret` is 256 bits in hex; `ca_pin` the SHA-256 of the CA certificate (DER); `root_pin` the digest of the first root.

    Without device and secret it is a join line: the same for all devices whose identity keys the factory has announced, and no
    secret at all.
    """

    urls: tuple[str, ...]
    fleet: str
    device: str
    secret: str
    ca_pin: str
    root_pin: str
    expires: int

    def encode(self) -> str:
        """The string form."""
        body = canonical.encode({name: _plain(getattr(self, name)) for name in Token.__slots__})
        return PREFIX + base64.urlsafe_b64encode(body).decode().rstrip("=")

    @staticmethod
    def decode(text: str) -> "Token":
        """Read a pasted token; raises Misuse("token-malformed")."""
        text = text.strip()
        try:
            if not text.startswith(PREFIX):
                raise ValueError("no edgeops1. in front")
            body = text[len(PREFIX) :]
            raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
            fields = Fields.of(canonical.decode(raw, "token", 4096), "token")
            urls = fields.texts("urls", URL, 8)
            if not urls:
                raise fields.fail("urls", "at least one address of the manager")
            device, secret = fields.text("device", ID, default=""), fields.text("secret", HEX64, default="")
            if bool(device) != bool(secret):
                raise fields.fail("secret", "there exactly where a device is named")
            return Token(
                urls, fields.text("fleet", ID), device, secret,
                fields.text("ca_pin", HEX64), fields.text("root_pin", HEX64), fields.number("expires"),
            )  # fmt: skip
        except (ValueError, binascii.Error, Rejected) as error:
            message = f"this is not a whole enrolment token ({error}); paste the line `edgeops device register` printed"
            raise Misuse("token-malformed", message) from None


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
