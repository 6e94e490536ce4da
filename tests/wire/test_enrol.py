"""The request to enrol proves that its sender holds the identity key it names; tokens and join lines."""

import json
from dataclasses import replace

import pytest

from edgeops.wire import canonical, envelope
from edgeops.wire.enrol import MOST_BYTES, EnrolRequest
from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.keys import Signer
from edgeops.wire.token import PREFIX, Token

OWNER, THIEF = Signer.from_seed(b"o" * 32), Signer.from_seed(b"t" * 32)
REQUEST = EnrolRequest("berlin", "pi-1", "s" * 64, OWNER.public, "a request", "1.0")
TOKEN = Token(("https://m:8443",), "berlin", "pi-1", "a" * 64, "b" * 64, "c" * 64, 5)


def test_what_was_sealed_is_read() -> None:
    """All fields come back, also without a device and a secret."""
    for request in (REQUEST, replace(REQUEST, device="", secret="")):
        assert EnrolRequest.open(request.seal(OWNER)) == request


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (REQUEST.seal(THIEF), "unknown-key"), (replace(REQUEST, identity=b"k" * 32).seal(OWNER), "unknown-key"),
        (envelope.seal("enrol", REQUEST.payload(), []), "threshold"),
        (envelope.seal("renew", REQUEST.payload(), [OWNER]), "wrong-type"),
        (envelope.seal("enrol", REQUEST.payload() | {"identity": "zz"}, [OWNER]), "malformed"),
        (envelope.seal("enrol", REQUEST.payload() | {"csr": 7}, [OWNER]), "malformed"),
        (envelope.seal("enrol", REQUEST.payload() | {"csr": "x" * 9_000}, [OWNER]), "malformed"),
        (envelope.seal("enrol", REQUEST.payload() | {"more": "x" * MOST_BYTES}, [OWNER]), "too-large"), (b"{}", "malformed"),
    ],
)  # fmt: skip
def test_without_proof_there_is_no_request(data: bytes, reason: str) -> None:
    """Another key's signature, none, another type, odd fields and too many bytes are refused by name."""
    with pytest.raises(Rejected) as caught:
        EnrolRequest.open(data)
    assert caught.value.reason == reason


def test_a_request_signed_by_two_is_refused() -> None:
    """There are no bystanders: a second signature does not ride along."""
    with pytest.raises(Rejected, match="unknown-key"):
        EnrolRequest.open(envelope.seal("enrol", REQUEST.payload(), [OWNER, THIEF]))


def test_no_byte_of_a_request_can_change() -> None:
    """One flipped bit anywhere: refused."""
    good = REQUEST.seal(OWNER)
    for at in range(len(good)):
        with pytest.raises(Rejected):
            EnrolRequest.open(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])


def test_a_join_line_is_a_token_without_a_secret() -> None:
    """Device and secret are both there or both empty."""
    line = replace(TOKEN, device="", secret="", expires=0)
    assert Token.decode(line.encode()) == line and Token.decode(TOKEN.encode()) == TOKEN
    for odd in (replace(TOKEN, device=""), replace(TOKEN, secret="")):
        with pytest.raises(Misuse, match="token-malformed"):
            Token.decode(odd.encode())


def test_a_token_is_canonical() -> None:
    """The same token has one text: a second spelling is refused."""
    body = json.dumps(canonical.decode(canonical.encode({"a": 1})), indent=1)
    with pytest.raises(Misuse, match="token-malformed"):
        Token.decode(PREFIX + body)
