"""Credentials: certificates named by the token, requests checked, revocation that stays."""

import datetime as dt
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from manager_house import NOW, Clock, FakeDevice

from edgeops.manager import enrol
from edgeops.manager.hub import Hub
from edgeops.wire.envelope import seal
from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.token import Token


def redeemed(hub: Hub, name: str = "pi-1", device: FakeDevice | None = None) -> tuple[FakeDevice, x509.Certificate, Token]:
    """Register and enrol."""
    token = Token.decode(enrol.register(hub, "me", name, {})["token"])
    device = device or FakeDevice(name)
    answer = enrol.redeem(hub, device.enrolment(token.secret))
    return device, x509.load_pem_x509_certificate(answer["certificate"].encode()), token


def revoked_serials(hub: Hub) -> set[int]:
    """Serial numbers on the list as it lies on disk."""
    return {entry.serial_number for entry in x509.load_pem_x509_crl(hub.layout.crl.read_bytes())}


def test_the_certificate_is_named_by_the_token(hub: Hub) -> None:
    """The name in the request is ignored; the certificate is for clients only, for 30 days, from an hour ago."""
    _, certificate, _ = redeemed(hub)
    assert [part.value for part in certificate.subject] == ["pi-1"]
    now = dt.datetime.fromtimestamp(NOW, dt.UTC)
    assert certificate.not_valid_before_utc == now - dt.timedelta(hours=1)
    assert certificate.not_valid_after_utc == now + dt.timedelta(days=30)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate.verify_directly_issued_by(hub.ca.certificate)


def test_a_request_cannot_ask_for_extensions(hub: Hub) -> None:
    """A request that asks to become a CA gets a plain client certificate."""
    token, device = Token.decode(enrol.register(hub, "me", "pi-1", {})["token"]), FakeDevice("pi-1")
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "manager")]))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    pem = builder.sign(device.tls, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    answer = enrol.redeem(hub, device.enrolment(token.secret) | {"csr": pem})
    certificate = x509.load_pem_x509_certificate(answer["certificate"].encode())
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert [part.value for part in certificate.subject] == ["pi-1"]


@pytest.mark.parametrize("kind", ["rsa", "p384", "ed25519", "broken-signature", "huge"])
def test_other_keys_and_broken_requests_are_refused(hub: Hub, kind: str) -> None:
    """Only P-256 with a valid signature passes."""
    token, device = Token.decode(enrol.register(hub, "me", "pi-1", {})["token"]), FakeDevice("pi-1")
    keys = {"rsa": lambda: rsa.generate_private_key(65537, 2048), "p384": lambda: ec.generate_private_key(ec.SECP384R1())}
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if kind == "ed25519":
        request = builder.sign(ed25519.Ed25519PrivateKey.generate(), None).public_bytes(Encoding.PEM)
    else:
        request = builder.sign(keys.get(kind, lambda: device.tls)(), hashes.SHA256()).public_bytes(Encoding.PEM)
    if kind == "broken-signature":
        der = bytearray(x509.load_pem_x509_csr(request).public_bytes(Encoding.DER))
        der[-1] ^= 1
        request = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)
    if kind == "huge":
        request += b"\n" * 9000
    with pytest.raises(Misuse, match="bad-csr"):
        enrol.redeem(hub, device.enrolment(token.secret) | {"csr": request.decode()})


def test_the_same_device_may_ask_again_and_nobody_else(hub: Hub) -> None:
    """After a lost answer the same identity key gets the same incarnation; its lost certificate is withdrawn."""
    device, first, token = redeemed(hub)
    again = enrol.redeem(hub, device.enrolment(token.secret))
    assert again["incarnation"] == 1
    assert revoked_serials(hub) == {first.serial_number}
    with pytest.raises(Misuse, match="token-refused"):
        enrol.redeem(hub, FakeDevice("pi-1").enrolment(token.secret))


def test_a_new_enrolment_is_a_new_incarnation(hub: Hub) -> None:
    """A re-flashed device enrols with a higher incarnation, and its old certificate is revoked."""
    _, first, _ = redeemed(hub)
    token = Token.decode(enrol.reissue(hub, "me", "pi-1")["token"])
    assert enrol.redeem(hub, FakeDevice("pi-1").enrolment(token.secret))["incarnation"] == 2
    assert revoked_serials(hub) == {first.serial_number}


def test_a_newer_token_makes_the_older_worthless(hub: Hub) -> None:
    """Only the newest token of a device can be redeemed."""
    old = Token.decode(enrol.register(hub, "me", "pi-1", {})["token"])
    enrol.reissue(hub, "me", "pi-1")
    with pytest.raises(Misuse, match="token-refused"):
        enrol.redeem(hub, FakeDevice("pi-1").enrolment(old.secret))


def test_a_revoked_certificate_stays_revoked_when_the_device_comes_back(hub: Hub, clock: Clock) -> None:
    """A stolen certificate does not return to life with the device's new enrolment; it leaves the list when it has expired."""
    _, stolen, _ = redeemed(hub)
    enrol.revoke(hub, "me", "pi-1")
    assert revoked_serials(hub) == {stolen.serial_number} and enrol.revoked(hub) == ["pi-1"]
    token = Token.decode(enrol.reissue(hub, "me", "pi-1")["token"])
    enrol.redeem(hub, FakeDevice("pi-1").enrolment(token.secret))
    assert stolen.serial_number in revoked_serials(hub) and enrol.revoked(hub) == []
    clock.now += 31 * 86_400
    enrol.write_crl(hub)
    assert revoked_serials(hub) == set()


def test_revoking_spoils_an_open_token(hub: Hub) -> None:
    """A token issued before the revocation cannot be redeemed after it."""
    token = Token.decode(enrol.register(hub, "me", "pi-1", {})["token"])
    enrol.revoke(hub, "me", "pi-1")
    with pytest.raises(Misuse, match="token-refused"):
        enrol.redeem(hub, FakeDevice("pi-1").enrolment(token.secret))


def test_two_revocations_at_once_are_both_on_the_list(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second revocation that overtakes the first before its list is written is not lost with it."""
    serials = {redeemed(hub, name)[1].serial_number for name in ("a", "b")}
    write, overtaking = enrol.write_whole, threading.Thread(target=enrol.revoke, args=(hub, "me", "b"))

    def slow(path: Path, data: bytes) -> None:
        if not overtaking.ident:
            overtaking.start()
            overtaking.join(0.5)
        write(path, data)

    monkeypatch.setattr(enrol, "write_whole", slow)
    enrol.revoke(hub, "me", "a")
    overtaking.join(10)
    assert revoked_serials(hub) == serials


def test_strangers_keep_no_writer_waiting(hub: Hub) -> None:
    """A wrong token or signature is refused while somebody else is writing: whoever floods enrolment does not stop ingest."""
    device, _, token = redeemed(hub)
    stranger = FakeDevice("pi-1")
    body = {"fleet": hub.settings.fleet, "device": "pi-1", "incarnation": 1, "csr": device.csr()}
    with hub.store.write():
        with pytest.raises(Misuse, match="token-refused"):
            enrol.redeem(hub, stranger.enrolment(token.secret))
        with pytest.raises(Rejected, match="unknown-key"):
            enrol.renew(hub, seal("renew", body, [stranger.identity]))
