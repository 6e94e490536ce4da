"""Browsers' credentials: who gets one, for how long, how often; what is kept of it."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from manager_house import FLEET, Clock, FakeDevice
from sqlalchemy import select

from edgeops.broker import passwords
from edgeops.manager import credential, enrol, register
from edgeops.manager.hub import Hub
from edgeops.store import rows
from edgeops.store.tables import credentials
from edgeops.wire.envelope import seal
from edgeops.wire.errors import EdgeopsError
from edgeops.wire.token import Token


@pytest.fixture
def open_hub(hub: Hub) -> Iterator[Hub]:
    """A manager that listens for browsers."""
    yield hub.with_settings(replace(hub.settings, wss_port=8884))


@pytest.fixture
def device(open_hub: Hub) -> FakeDevice:
    """An enrolled device."""
    return enrolled(open_hub, "pi-1")


def enrolled(hub: Hub, name: str) -> FakeDevice:
    """Register and enrol a device."""
    text = register.register(hub, "me", name, register.Wanted({}))["token"]
    made = FakeDevice(name)
    enrol.redeem(hub, made.enrolment(Token.decode(text).secret))
    return made


def asked(claimant: FakeDevice, challenge: str, **other: object) -> bytes:
    """A credential envelope; `other` replaces fields."""
    signer = other.pop("signer", claimant.identity)
    payload = {"fleet": FLEET, "device": claimant.id, "incarnation": 1, "nonce": challenge}
    return seal("credential", payload | other, [signer])  # type: ignore[list-item]


def lines(hub: Hub) -> dict[str, str]:
    """The password file as the broker reads it."""
    credential.write_passwords(hub)
    return passwords.parse(hub.layout.passwords.read_text())


def test_a_device_gets_a_password_of_an_hour(open_hub: Hub, device: FakeDevice, clock: Clock) -> None:
    """The password fits the line in the broker's private file, is kept nowhere, and ends with its hour."""
    nonce = credential.challenge(open_hub, "pi-1")["nonce"]
    answer = credential.issue(open_hub, asked(device, nonce))
    assert answer["url"] == "wss://localhost:8884" and answer["username"] == "pi-1"
    assert answer["expires"] == clock.now + credential.LIFE_S
    assert passwords.fits(answer["password"], lines(open_hub)["pi-1"])
    assert open_hub.layout.passwords.stat().st_mode & 0o777 == 0o600
    with open_hub.store.read() as tx:
        assert answer["password"] not in str(tx.execute(select(credentials)).all())
    assert credential.write_passwords(open_hub) == answer["expires"]
    clock.now += credential.LIFE_S
    assert lines(open_hub) == {"pi-1": passwords.LOCKED} and credential.write_passwords(open_hub) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"device": "pi-9"}, "credential-refused"),
        ({"signer": FakeDevice("pi-1").identity}, "credential-refused"),
        ({"device": "pi-2"}, "credential-refused"),
        ({"device": "../x"}, "malformed"),
        ({"fleet": "other"}, "incarnation"),
        ({"incarnation": 2}, "incarnation"),
        ({"nonce": "0.00000000000000000000000000000000." + "A" * 43}, "bad-nonce"),
        ({"nonce": ""}, "malformed"),
        ({"nonce": 7}, "malformed"),
    ],
)
def test_a_wrong_request_gets_nothing(open_hub: Hub, device: FakeDevice, change: dict[str, object], reason: str) -> None:
    """Another's name, key, fleet, incarnation or challenge: refused by its reason, and nothing is stored."""
    enrolled(open_hub, "pi-2")
    nonce = credential.challenge(open_hub, "pi-1")["nonce"]
    with pytest.raises(EdgeopsError) as refused:
        credential.issue(open_hub, asked(device, nonce, **change))
    assert refused.value.reason == reason
    assert lines(open_hub) == {}


def test_a_challenge_is_for_one_device_a_minute_and_once(open_hub: Hub, device: FakeDevice, clock: Clock) -> None:
    """Neither another's challenge nor an old, altered, used or overtaken one will do."""
    other = credential.challenge(open_hub, "pi-2")["nonce"]
    old = credential.challenge(open_hub, "pi-1")["nonce"]
    clock.now += 1
    nonce = credential.challenge(open_hub, "pi-1")["nonce"]
    altered = f"{clock.now + 1:x}" + nonce[nonce.index(".") :]
    credential.issue(open_hub, asked(device, nonce))
    late = credential.challenge(open_hub, "pi-1")["nonce"]
    for given, reason in ((nonce, "nonce-spent"), (old, "nonce-spent"), (other, "bad-nonce"), (altered, "bad-nonce")):
        with pytest.raises(EdgeopsError) as refused:
            credential.issue(open_hub, asked(device, given))
        assert refused.value.reason == reason
    clock.now += credential.CHALLENGE_S
    with pytest.raises(EdgeopsError) as refused:
        credential.issue(open_hub, asked(device, late))
    assert refused.value.reason == "nonce-expired"


def test_a_newer_credential_ends_the_older(open_hub: Hub, device: FakeDevice, clock: Clock) -> None:
    """A device has one password at a time."""
    first = credential.issue(open_hub, asked(device, credential.challenge(open_hub, "pi-1")["nonce"]))
    clock.now += 1
    second = credential.issue(open_hub, asked(device, credential.challenge(open_hub, "pi-1")["nonce"]))
    assert not passwords.fits(first["password"], lines(open_hub)["pi-1"])
    assert passwords.fits(second["password"], lines(open_hub)["pi-1"])


def test_who_is_out_has_no_password(open_hub: Hub, device: FakeDevice, clock: Clock) -> None:
    """Revoked: the line is locked and no new one is given; enrolled anew, the old password stays dead."""
    first = credential.issue(open_hub, asked(device, credential.challenge(open_hub, "pi-1")["nonce"]))
    enrol.revoke(open_hub, "me", "pi-1")
    assert lines(open_hub) == {"pi-1": passwords.LOCKED}
    clock.now += 1
    with pytest.raises(EdgeopsError, match="device-revoked"):
        credential.issue(open_hub, asked(device, credential.challenge(open_hub, "pi-1")["nonce"]))
    text = register.reissue(open_hub, "me", "pi-1")["token"]
    enrol.redeem(open_hub, FakeDevice("pi-1").enrolment(Token.decode(text).secret))
    assert not passwords.fits(first["password"], lines(open_hub)["pi-1"])
    with pytest.raises(EdgeopsError, match="credential-refused"):
        credential.issue(open_hub, asked(device, credential.challenge(open_hub, "pi-1")["nonce"]))


def test_strangers_keep_no_writer_waiting(open_hub: Hub, device: FakeDevice) -> None:
    """What is refused is refused while somebody else is writing: whoever floods /credential does not stop ingest."""
    nonce = credential.challenge(open_hub, "pi-1")["nonce"]
    with open_hub.store.write():
        for claimant in (FakeDevice("pi-1"), FakeDevice("nobody")):
            with pytest.raises(EdgeopsError, match="credential-refused"):
                credential.issue(open_hub, asked(claimant, nonce))


def test_without_a_listener_there_are_none(hub: Hub) -> None:
    """A manager that does not listen for browsers says so."""
    with pytest.raises(EdgeopsError, match="no-websocket"):
        credential.challenge(hub, "pi-1")
    with pytest.raises(EdgeopsError, match="no-websocket"):
        credential.issue(hub, b"{}")


def test_a_challenge_tells_nobody_who_exists(open_hub: Hub, device: FakeDevice) -> None:
    """Known and unknown names get challenges of one form; no name that cannot be is asked for."""
    known, unknown = (credential.challenge(open_hub, name)["nonce"] for name in ("pi-1", "pi-9"))
    assert credential.NONCE.fullmatch(known) and credential.NONCE.fullmatch(unknown)
    with pytest.raises(EdgeopsError, match="device-id-invalid"):
        credential.challenge(open_hub, "../x")
    with open_hub.store.read() as tx:
        assert rows.find(tx, credentials) == []
