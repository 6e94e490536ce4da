"""The request to enrol: an envelope sealed by the identity key it names, so that whoever sends it holds that key."""

from dataclasses import dataclass
from typing import Any

from . import envelope
from .errors import Rejected
from .fields import HEX64
from .keys import Signer, key_id

MOST_BYTES = 16 << 10
MAX_CSR = 8 << 10


@dataclass(frozen=True, slots=True)
class EnrolRequest:
    """`device` and `secret` are the token's, empty for a device the factory announced; `identity` is the raw Ed25519 key."""

    fleet: str
    device: str
    secret: str
    identity: bytes
    csr: str
    agent: str = ""

    def payload(self) -> dict[str, Any]:
        """The JSON payload."""
        return {
            "fleet": self.fleet, "device": self.device, "secret": self.secret, "identity": self.identity.hex(), "csr": self.csr,
            "agent": self.agent,
        }  # fmt: skip

    def seal(self, signer: Signer) -> bytes:
        """The envelope, which only opens if `signer` holds the identity key."""
        return envelope.seal("enrol", self.payload(), [signer])

    @staticmethod
    def open(data: bytes) -> "EnrolRequest":
        """Read a request and verify that the identity key in it has signed it; raises Rejected.

        Fleet, device and secret may be anything: what is wrong with them gets one and the same refusal later.
        """
        if len(data) > MOST_BYTES:
            raise Rejected("too-large", f"enrol has {len(data)} bytes, {MOST_BYTES} are allowed")
        claimed = envelope.contents(data, "enrol").text("identity", HEX64)
        identity = bytes.fromhex(claimed)
        fields = envelope.open_sealed(data, "enrol", {key_id(identity): identity}, 1).fields
        return EnrolRequest(
            fields.text("fleet", most=64), fields.text("device", most=64), fields.text("secret", most=128), identity,
            fields.text("csr", most=MAX_CSR), fields.text("agent", most=64, default=""),
        )  # fmt: skip
