"""What a straw says of its being there: born, leaving, gone. Its birth always says that it is simulated."""

from edgeops.wire import envelope
from edgeops.wire.keys import Signer
from edgeops.wire.messages import Presence
from edgeops.wire.trust import Capabilities, Trust, versions

from ..shell import facts

FACTS = {"simulated": True}


def birth(trust: Trust, signer: Signer, boot: str, device: Capabilities, nonce: str, seq: int) -> bytes:
    """A sealed birth, numbered `seq`."""
    who = trust.fleet, trust.device, trust.incarnation, boot
    message = Presence(*who, "birth", nonce, facts.birth(device), FACTS, versions(trust), seq)
    return envelope.seal("presence", message.payload(), [signer])


def leave(trust: Trust, signer: Signer, boot: str, kind: str) -> bytes:
    """A sealed goodbye, or gone for the last will."""
    return envelope.seal("presence", Presence(trust.fleet, trust.device, trust.incarnation, boot, kind).payload(), [signer])
