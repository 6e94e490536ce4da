"""Credentials: certificates named by the token, requests checked, approval, renewal, revocation that stays, ends that are final."""

import datetime as dt
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from manager_house import NOW, Clock, FakeDevice, seen

from edgeops.fleet.enrol import MOST_RENEWALS
from edgeops.manager import devices, enrol, register, revoke
from edgeops.manager.hub import Hub
from edgeops.manager.register import Wanted
from edgeops.store import audit
from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.keys import sha256
from edgeops.wire.token import Token

DAY_S = 86_400


def registered(hub: Hub, name: str = "pi-1", **wanted: Any) -> Token:
    """Register a device; its token or join line."""
    return Token.decode(register.register(hub, "me", name, Wanted({}, **wanted))["token"])


def redeemed(hub: Hub, name: str = "pi-1", device: FakeDevice | None = None) -> tuple[FakeDevice, x509.Certificate, Token]:
    """Register and enrol."""
    token, device = registered(hub, name), device or FakeDevice(name)
    return device, certificate(enrol.redeem(hub, device.enrolment(token.secret))), token


def certificate(answer: dict[str, Any]) -> x509.Certificate:
    """The certificate in an answer."""
    assert answer["status"] == "enrolled"
    return x509.load_pem_x509_certificate(answer["certificate"].encode())


def revoked_serials(hub: Hub) -> set[int]:
    """Serial numbers on the list as it lies on disk."""
    return {entry.serial_number for entry in x509.load_pem_x509_crl(hub.layout.crl.read_bytes())}


def refusal(call: Callable[[], object]) -> str:
    """The reason with which a call is refused."""
    with pytest.raises((Misuse, Rejected)) as caught:
        call()
    return caught.value.reason


def audited(hub: Hub) -> list[tuple[str, str]]:
    """Action and subject of the audit log, oldest first."""
    with hub.store.read() as tx:
        return [(entry["action"], entry["subject"]) for entry in audit.page(tx, 1_000)]


def factory(device: FakeDevice) -> str:
    """The fingerprint the factory writes down."""
    return sha256(device.identity.public)


def test_the_certificate_is_named_by_the_token(hub: Hub) -> None:
    """The name in the request is ignored; the certificate is for clients only, for 30 days, from an hour ago."""
    device = FakeDevice("pi-1")
    token = registered(hub)
    made = certificate(enrol.redeem(hub, device.enrolment(token.secret, csr=device.csr("manager"))))
    assert [part.value for part in made.subject] == ["pi-1"]
    now = dt.datetime.fromtimestamp(NOW, dt.UTC)
    assert made.not_valid_before_utc == now - dt.timedelta(hours=1)
    assert made.not_valid_after_utc == now + dt.timedelta(days=30)
    usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    made.verify_directly_issued_by(hub.ca.certificate)


def csr(kind: str, device: FakeDevice) -> str:
    """A request that must not be signed."""
    names = {"slash": "a/b", "plus": "a+b", "hash": "#", "umlaut": "ü", "empty": ""}
    builder = x509.CertificateSigningRequestBuilder()
    if kind in names:
        builder = builder.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[kind] or " ")]))
    elif kind == "two names":
        builder = builder.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in ("a", "b")]))
    else:
        builder = builder.subject_name(x509.Name([]))
    if kind == "ca":
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    if kind == "other name":
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("pi-2")]), critical=False)
    if kind == "ed25519":
        return builder.sign(ed25519.Ed25519PrivateKey.generate(), None).public_bytes(Encoding.PEM).decode()
    keys = {"rsa": lambda: rsa.generate_private_key(65537, 2048), "p384": lambda: ec.generate_private_key(ec.SECP384R1())}
    request = builder.sign(keys.get(kind, lambda: device.tls)(), hashes.SHA256()).public_bytes(Encoding.PEM)
    if kind == "broken-signature":
        der = bytearray(x509.load_pem_x509_csr(request).public_bytes(Encoding.DER))
        der[-1] ^= 1
        request = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)
    return request.decode()


@pytest.mark.parametrize(
    "kind",
    ["rsa", "p384", "ed25519", "broken-signature", "ca", "other name", "slash", "plus", "hash", "umlaut", "empty", "two names"],
)
def test_only_a_key_and_a_plain_name_may_be_asked_for(hub: Hub, kind: str) -> None:
    """Other keys, a broken signature, extensions and odd names are refused; the token stays usable, and renewal is as strict."""
    token, device = registered(hub), FakeDevice("pi-1")
    bad = csr(kind, device)
    assert refusal(lambda: enrol.redeem(hub, device.enrolment(token.secret, csr=bad))) == "bad-csr"
    enrol.redeem(hub, device.enrolment(token.secret))
    assert refusal(lambda: enrol.renew(hub, device.renewal(csr=bad))) == "bad-csr"


def test_a_request_must_be_signed_by_the_identity_in_it(hub: Hub) -> None:
    """Who presents a good token for a key he does not hold gets nothing, and the token stays."""
    token, device, thief = registered(hub), FakeDevice("pi-1"), FakeDevice("pi-1")
    stolen = device.identity.public
    assert refusal(lambda: enrol.redeem(hub, thief.enrolment(token.secret, identity=stolen))) == "unknown-key"
    assert enrol.redeem(hub, device.enrolment(token.secret))["incarnation"] == 1


def test_a_token_of_another_fleet_or_device_is_refused(hub: Hub) -> None:
    """A token works for the device and the fleet it names."""
    token, device = registered(hub), FakeDevice("pi-1")
    registered(hub, "pi-2")
    for other in ({"fleet": "elsewhere"}, {"device": "pi-2"}, {"device": "ghost"}, {"device": "pi/1"}, {"device": ""}):
        assert refusal(lambda other=other: enrol.redeem(hub, device.enrolment(token.secret, **other))) == "token-refused"


def test_the_same_device_may_ask_again_and_nobody_else(hub: Hub) -> None:
    """After a lost answer the same keys get the same certificate, however often; for another TLS key the lost one is withdrawn."""
    device, first, token = redeemed(hub)
    for _ in range(50):
        assert certificate(enrol.redeem(hub, device.enrolment(token.secret))) == first
    assert revoked_serials(hub) == set()
    device.tls = ec.generate_private_key(ec.SECP256R1())
    again = enrol.redeem(hub, device.enrolment(token.secret))
    assert again["incarnation"] == 1
    assert revoked_serials(hub) == {first.serial_number}
    assert refusal(lambda: enrol.redeem(hub, FakeDevice("pi-1").enrolment(token.secret))) == "token-refused"
    assert audited(hub).count(("device-enrol", "pi-1")) == 1


def test_a_new_enrolment_is_a_new_incarnation(hub: Hub) -> None:
    """A re-flashed device enrols with a higher incarnation; all certificates it had before, renewed ones too, are revoked."""
    device, first, _ = redeemed(hub)
    second = certificate(enrol.renew(hub, device.renewal()))
    assert revoked_serials(hub) == set()
    token = Token.decode(register.reissue(hub, "me", "pi-1")["token"])
    assert enrol.redeem(hub, FakeDevice("pi-1").enrolment(token.secret))["incarnation"] == 2
    assert revoked_serials(hub) == {first.serial_number, second.serial_number}


def test_a_newer_token_makes_the_older_worthless(hub: Hub) -> None:
    """Only the newest token of a device can be redeemed."""
    old = registered(hub)
    register.reissue(hub, "me", "pi-1")
    assert refusal(lambda: enrol.redeem(hub, FakeDevice("pi-1").enrolment(old.secret))) == "token-refused"


def test_an_approval_comes_between_token_and_certificate(hub: Hub, clock: Clock) -> None:
    """The device waits with its key until somebody approves it, longer than its token lives; the log tells it all."""
    token, device = registered(hub, approval=True), FakeDevice("pi-1")
    ask = device.enrolment(token.secret)
    assert enrol.redeem(hub, ask) == {"status": "pending", "device": "pi-1", "retry_s": enrol.POLL_S}
    assert enrol.redeem(hub, ask)["status"] == "pending"
    assert refusal(lambda: enrol.redeem(hub, FakeDevice("pi-1").enrolment(token.secret))) == "token-refused"
    waiting = {"id": "pi-1", "kind": "enrol", "fingerprint": factory(device), "since": NOW, "labels": {}}
    assert devices.show(hub, "pi-1")["pending"]["identity"] == factory(device)  # never the key itself
    assert register.pending(hub) == [waiting]
    clock.now = token.expires + DAY_S
    assert register.decide(hub, "me", "granted", seen(hub, "pi-1")) == [waiting]
    assert register.pending(hub) == [] and enrol.redeem(hub, ask)["incarnation"] == 1
    actions = ["device-register", "device-enrol-pending", "device-approve", "device-enrol"]
    assert audited(hub)[-4:] == [(action, "pi-1") for action in actions]


def test_an_approval_is_for_the_key_that_was_seen(hub: Hub) -> None:
    """Who took the place of a waiting device since, with a newer token, is not approved in its stead, nor anybody beside it."""
    for name in ("pi-1", "pi-2"):
        token = registered(hub, name, approval=True)
        enrol.redeem(hub, FakeDevice(name).enrolment(token.secret))
    before = seen(hub)
    token, thief = Token.decode(register.reissue(hub, "you", "pi-1")["token"]), FakeDevice("pi-1")
    enrol.redeem(hub, thief.enrolment(token.secret))
    for meant in (before, {"pi-1": before["pi-1"]}, dict(reversed(before.items()))):
        assert refusal(lambda meant=meant: register.decide(hub, "me", "granted", meant)) == "fingerprint-changed"
    assert enrol.redeem(hub, thief.enrolment(token.secret))["status"] == "pending" and set(seen(hub)) == {"pi-1", "pi-2"}
    assert refusal(lambda: register.decide(hub, "me", "granted", {"pi-2": "x"})) == "fingerprint-invalid"
    loud = before["pi-2"].upper()
    assert [one["id"] for one in register.decide(hub, "me", "granted", {"pi-2": loud})] == ["pi-2"]


def test_many_are_approved_at_once_and_who_is_rejected_stays_out(hub: Hub) -> None:
    """A selector means those who wait; a rejected key is told so until the device is given a new token."""
    asks = {}
    for name in ("a", "b", "c"):
        token = Token.decode(register.register(hub, "me", name, Wanted({"site": name}, approval=True))["token"])
        asks[name] = FakeDevice(name).enrolment(token.secret)
        enrol.redeem(hub, asks[name])
    registered(hub, "d", approval=True)
    assert [one["id"] for one in register.decide(hub, "me", "rejected", seen(hub, "a"))] == ["a"]
    assert [one["id"] for one in register.decide(hub, "me", "granted", seen(hub))] == ["b", "c"]
    assert refusal(lambda: enrol.redeem(hub, asks["a"])) == "enrolment-rejected"
    assert {enrol.redeem(hub, asks[name])["status"] for name in "bc"} == {"enrolled"}
    assert refusal(lambda: register.decide(hub, "me", "granted", {"d": "0" * 64})) == "nothing-pending"
    token = Token.decode(register.reissue(hub, "me", "a")["token"])
    assert enrol.redeem(hub, FakeDevice("a").enrolment(token.secret))["status"] == "pending"


def test_a_device_the_factory_announced_needs_no_secret(hub: Hub) -> None:
    """Its key finds the device; the line is the same for all; another key and a second device with this key are refused."""
    device = FakeDevice("")
    written = ":".join(factory(device).upper()[at : at + 2] for at in range(0, 64, 2))
    line = registered(hub, fingerprint=written)
    assert (line.device, line.secret, line.expires) == ("", "", 0) and line.encode() == enrol.line(hub)
    assert refusal(lambda: registered(hub, "pi-2", fingerprint=factory(device))) == "fingerprint-taken"
    stranger = FakeDevice("")
    assert refusal(lambda: enrol.redeem(hub, stranger.enrolment("", csr=stranger.csr("x")))) == "token-refused"
    answer = enrol.redeem(hub, device.enrolment("", csr=device.csr("x")))
    assert (answer["device"], answer["incarnation"]) == ("pi-1", 1)
    assert [part.value for part in certificate(answer).subject] == ["pi-1"]


def test_an_announced_device_that_lost_its_key_comes_back_with_a_token(hub: Hub) -> None:
    """The operator's token stands for the fingerprint: a new key comes in by it, the announced one does not any more."""
    device = FakeDevice("pi-1")
    registered(hub, fingerprint=factory(device))
    assert enrol.redeem(hub, device.enrolment(""))["incarnation"] == 1
    token = Token.decode(register.reissue(hub, "me", "pi-1")["token"])
    assert refusal(lambda: enrol.redeem(hub, device.enrolment(""))) == "token-refused"
    assert enrol.redeem(hub, FakeDevice("pi-1").enrolment(token.secret))["incarnation"] == 2
    assert refusal(lambda: enrol.redeem(hub, device.enrolment(""))) == "token-refused"


def test_a_recorded_factory_request_does_not_throw_the_device_out(hub: Hub, clock: Clock) -> None:
    """A second request of an announced key waits for an operator, and the device goes on meanwhile."""
    device = FakeDevice("pi-1")
    registered(hub, fingerprint=factory(device))
    recorded = device.enrolment("")
    enrol.redeem(hub, recorded)
    clock.now += 2 * 3_600
    assert enrol.redeem(hub, recorded)["status"] == "pending"
    assert devices.show(hub, "pi-1")["status"] == "enrolled" and revoked_serials(hub) == set()
    register.decide(hub, "me", "granted", seen(hub, "pi-1"))
    assert enrol.redeem(hub, recorded)["incarnation"] == 2


def test_renewal_at_any_age_but_a_very_late_one_is_approved(hub: Hub, clock: Clock) -> None:
    """A device that slept past the limit waits for an operator; another name, key, incarnation or standing gets nothing."""
    device, _, _ = redeemed(hub)
    redeemed(hub, "pi-2", FakeDevice("pi-2"))
    clock.now += 100 * DAY_S
    assert certificate(enrol.renew(hub, device.renewal())).not_valid_after_utc.timestamp() == clock.now + 30 * DAY_S
    clock.now += (30 + 90) * DAY_S + 1
    assert enrol.renew(hub, device.renewal())["status"] == "pending"
    assert [(one["id"], one["kind"]) for one in register.pending(hub)] == [("pi-1", "renew")]
    register.decide(hub, "me", "granted", seen(hub))
    assert enrol.renew(hub, device.renewal())["status"] == "enrolled"
    assert refusal(lambda: enrol.renew(hub, device.renewal(csr=device.csr("pi-2")))) == "wrong-name"
    assert refusal(lambda: enrol.renew(hub, device.renewal(device="pi-2"))) == "renew-refused"
    assert refusal(lambda: enrol.renew(hub, device.renewal(device="ghost"))) == "renew-refused"
    assert refusal(lambda: enrol.renew(hub, device.renewal(incarnation=2))) == "incarnation"
    enrol.revoke(hub, "me", "pi-1")
    assert refusal(lambda: enrol.renew(hub, device.renewal())) == "device-revoked"


def test_renewals_fill_neither_the_log_nor_the_list(hub: Hub, clock: Clock) -> None:
    """A device that renews without end is told to stop; what it was given within a day is one line in the log."""
    device, _, _ = redeemed(hub)
    for _ in range(MOST_RENEWALS):
        enrol.renew(hub, device.renewal())
    for _ in range(50):
        assert refusal(lambda: enrol.renew(hub, device.renewal())) == "renewed-lately"
    assert audited(hub).count(("device-renew", "pi-1")) == 1 and revoked_serials(hub) == set()
    clock.now += DAY_S
    enrol.renew(hub, device.renewal())
    assert audited(hub).count(("device-renew", "pi-1")) == 2


def test_a_repeated_enrolment_with_ever_new_keys_is_stopped(hub: Hub) -> None:
    """Neither the log nor the list grows by them without end."""
    device, _, token = redeemed(hub)
    for _ in range(MOST_RENEWALS):
        device.tls = ec.generate_private_key(ec.SECP256R1())
        enrol.redeem(hub, device.enrolment(token.secret))
    device.tls = ec.generate_private_key(ec.SECP256R1())
    assert refusal(lambda: enrol.redeem(hub, device.enrolment(token.secret))) == "renewed-lately"
    assert len(revoked_serials(hub)) == MOST_RENEWALS


def test_a_recorded_enrolment_takes_no_renewed_certificate_away(hub: Hub) -> None:
    """Once a device has renewed, its enrolment was not lost: whoever recorded it and repeats it gets nothing."""
    token, device = registered(hub), FakeDevice("pi-1")
    recorded = device.enrolment(token.secret)
    enrol.redeem(hub, recorded)
    device.tls = ec.generate_private_key(ec.SECP256R1())
    enrol.renew(hub, device.renewal())
    assert refusal(lambda: enrol.redeem(hub, recorded)) == "token-refused" and revoked_serials(hub) == set()


def test_a_recorded_renewal_is_worth_nothing(hub: Hub, clock: Clock) -> None:
    """It neither certifies the old key again, nor uses up what the device itself may ask for; nor does one that had to wait."""
    device, _, _ = redeemed(hub)
    recorded = device.renewal()
    enrol.renew(hub, recorded)
    for _ in range(3):
        clock.now += DAY_S + 1
        for _ in range(MOST_RENEWALS):
            assert refusal(lambda: enrol.renew(hub, recorded)) == "stale-renewal"
        assert enrol.renew(hub, device.renewal())["status"] == "enrolled"
    clock.now += (30 + 90) * DAY_S + 1
    waiting = device.renewal()
    assert enrol.renew(hub, waiting)["status"] == "pending"
    register.decide(hub, "me", "granted", seen(hub, "pi-1"))
    assert refusal(lambda: enrol.renew(hub, waiting)) == "stale-renewal"
    assert enrol.renew(hub, device.renewal())["status"] == "enrolled"


def test_a_revoked_certificate_stays_revoked_when_the_device_comes_back(hub: Hub, clock: Clock) -> None:
    """A stolen certificate does not return to life with the device's new enrolment; it leaves the list when it has expired."""
    _, stolen, _ = redeemed(hub)
    enrol.revoke(hub, "me", "pi-1")
    assert revoked_serials(hub) == {stolen.serial_number} and set(revoke.shut_out(hub)) == {"pi-1"}
    token = Token.decode(register.reissue(hub, "me", "pi-1")["token"])
    enrol.redeem(hub, FakeDevice("pi-1").enrolment(token.secret))
    assert stolen.serial_number in revoked_serials(hub) and revoke.shut_out(hub) == {}
    clock.now += 31 * DAY_S
    with hub.store.read() as tx:
        assert stolen.serial_number in revoked_serials(hub) and tx is not None
    enrol.revoke(hub, "me", "pi-1")
    assert stolen.serial_number not in revoked_serials(hub)


def test_revoking_spoils_an_open_token(hub: Hub) -> None:
    """A token issued before the revocation cannot be redeemed after it, nor can a fingerprint."""
    token = registered(hub)
    device = FakeDevice("pi-2")
    registered(hub, "pi-2", fingerprint=factory(device))
    for name in ("pi-1", "pi-2"):
        enrol.revoke(hub, "me", name)
    assert refusal(lambda: enrol.redeem(hub, FakeDevice("pi-1").enrolment(token.secret))) == "token-refused"
    assert refusal(lambda: enrol.redeem(hub, device.enrolment(""))) == "token-refused"


def test_a_decommissioned_id_is_not_given_away_by_accident(hub: Hub) -> None:
    """Its certificate is out, no act revives it, and only `reissue` makes room for another device, at a higher incarnation."""
    device, last, _ = redeemed(hub)
    shown = enrol.decommission(hub, "me", "pi-1")
    assert (shown["status"], shown["presence"]) == ("decommissioned", "never")
    assert revoked_serials(hub) == {last.serial_number} and set(revoke.shut_out(hub)) == {"pi-1"}
    assert refusal(lambda: enrol.renew(hub, device.renewal())) == "device-revoked"
    for act in (
        lambda: registered(hub), lambda: register.reissue(hub, "me", "pi-1"), lambda: enrol.revoke(hub, "me", "pi-1"),
        lambda: enrol.decommission(hub, "me", "pi-1"),
    ):  # fmt: skip
        assert refusal(act) == "device-decommissioned"
    token = registered(hub, reissue=True)
    assert refusal(lambda: registered(hub, reissue=True)) == "device-exists"
    assert refusal(lambda: enrol.renew(hub, device.renewal())) == "renew-refused"
    assert enrol.redeem(hub, FakeDevice("pi-1").enrolment(token.secret))["incarnation"] == 2


def test_two_revocations_at_once_are_both_on_the_list(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second revocation that overtakes the first before its list is written is not lost with it."""
    serials = {redeemed(hub, name)[1].serial_number for name in ("a", "b")}
    write, overtaking = revoke.write_whole, threading.Thread(target=enrol.revoke, args=(hub, "me", "b"))

    def slow(path: Path, data: bytes) -> None:
        if not overtaking.ident:
            overtaking.start()
            overtaking.join(0.5)
        write(path, data)

    monkeypatch.setattr(revoke, "write_whole", slow)
    enrol.revoke(hub, "me", "a")
    overtaking.join(10)
    assert revoked_serials(hub) == serials


def test_strangers_keep_no_writer_waiting(hub: Hub) -> None:
    """A wrong token or signature is refused while somebody else is writing: whoever floods enrolment does not stop ingest."""
    _, _, token = redeemed(hub)
    stranger = FakeDevice("pi-1")
    with hub.store.write():
        assert refusal(lambda: enrol.redeem(hub, stranger.enrolment(token.secret))) == "token-refused"
        assert refusal(lambda: enrol.renew(hub, stranger.renewal())) == "renew-refused"
