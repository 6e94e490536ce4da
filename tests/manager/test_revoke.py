"""Revocation lists as files, and the proof at the broker against brokers that fail in every way."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from cryptography import x509
from manager_house import Clock, FakeDevice

from edgeops.broker.knock import Answer, Visitor
from edgeops.manager import enrol, pki, register, revoke, silencer
from edgeops.manager.hub import Hub
from edgeops.manager.silencer import Silencer
from edgeops.store import audit, rows
from edgeops.store.tables import devices
from edgeops.wire.errors import Unreachable
from edgeops.wire.token import Token

PATIENCE_S = 10.0


def lists(hub: Hub) -> list[x509.CertificateRevocationList]:
    """The revocation lists in the file."""
    end = b"-----END X509 CRL-----\n"
    return [x509.load_pem_x509_crl(part + end) for part in hub.layout.crl.read_bytes().split(end)[:-1]]


def enrolled(hub: Hub, name: str) -> x509.Certificate:
    """A device's certificate."""
    text = register.register(hub, "me", name, register.Wanted({}))["token"]
    answer = enrol.redeem(hub, FakeDevice(name).enrolment(Token.decode(text).secret))
    return x509.load_pem_x509_certificate(answer["certificate"].encode())


def test_a_newer_list_is_in_force_later(hub: Hub) -> None:
    """Of two lists made in one second the second is the newer one, or a broker that holds both could go on using the first."""
    one, two = enrolled(hub, "pi-1"), enrolled(hub, "pi-2")
    enrol.revoke(hub, "me", "pi-1")
    [first] = lists(hub)
    enrol.revoke(hub, "me", "pi-2")
    [second] = lists(hub)
    assert second.last_update_utc > first.last_update_utc
    assert {one.serial_number, two.serial_number} == {entry.serial_number for entry in second}
    assert second.last_update_utc <= datetime.fromtimestamp(hub.now(), UTC)


def test_what_is_there_is_not_written_again(hub: Hub, clock: Clock) -> None:
    """An unchanged list stays for half its life, then it is renewed; one that is broken, expired or of another time at once."""
    revoke.write_crl(hub)
    [first] = lists(hub)
    clock.now += 10 * 86_400
    revoke.write_crl(hub)
    assert lists(hub) == [first]
    clock.now += 180 * 86_400
    revoke.write_crl(hub)
    [renewed] = lists(hub)
    assert renewed.next_update_utc > first.next_update_utc
    clock.now += 400 * 86_400
    revoke.write_crl(hub)
    assert lists(hub)[0].next_update_utc.timestamp() > clock.now
    clock.now -= 500 * 86_400
    revoke.write_crl(hub)
    assert lists(hub)[0].last_update_utc.timestamp() <= clock.now
    hub.layout.crl.write_bytes(b"rubbish")
    revoke.write_crl(hub)
    assert len(lists(hub)) == 1


def test_each_ca_has_its_list(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a CA is replaced there is a list of each, naming its issuer's key, for OpenSSL refuses everybody without one."""
    other = pki.make_ca(hub.settings.fleet, hub.now())
    authority = hub.papers.authority
    hub.shelf.papers = type(hub.papers)(
        *(getattr(hub.papers, name) for name in hub.papers.__slots__ if name != "authority"),
        type(authority)(authority.serving, authority.issuing, (hub.ca, other)),
    )
    certificate = enrolled(hub, "pi-1")
    enrol.revoke(hub, "me", "pi-1")
    made = lists(hub)
    for ca, found in zip((hub.ca, other), made, strict=True):
        assert found.is_signature_valid(ca.certificate.public_key())
        assert found.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
        issuer = found.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        assert issuer == x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    revoke.write_crl(hub)
    assert lists(hub) == made


class Paper:
    """A broker on paper: how it takes visitors, and what it was told."""

    kind, host, port, can_silence = "external", "127.0.0.1", 1, True

    def __init__(self) -> None:
        self.listed: Answer = "revoked"
        self.own: Answer = "accepted"
        self.told: list[frozenset[str]] = []
        self.visits: list[str] = []
        self.at_visit: Callable[[str], None] = lambda name: None

    def reload(self, names: frozenset[str] = frozenset()) -> None:
        """Note the names."""
        self.told.append(frozenset(names))

    def knock(self, _host: str, _port: int, _ca: object, visitor: Visitor) -> Answer:
        """Take a visitor."""
        self.visits.append(visitor.name)
        self.at_visit(visitor.name)
        return self.listed if visitor.name == silencer.VISITOR else self.own


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch) -> Paper:
    """A broker on paper that behaves until it is told otherwise."""
    made = Paper()
    monkeypatch.setattr(silencer, "knock", made.knock)
    monkeypatch.setattr(silencer, "AGAIN_S", 0.01)
    return made


@pytest.fixture
def at_work(hub: Hub, paper: Paper) -> Iterator[Silencer]:
    """A silencer whose loop runs."""
    made = Silencer(hub, lambda: paper, paper.host, lambda: ())
    thread = threading.Thread(target=made.run)
    thread.start()
    yield made
    made.close()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def row(hub: Hub, device: str) -> dict[str, object]:
    """A device's row."""
    with hub.store.read() as tx:
        return dict(rows.get(tx, devices, id=device) or {})


def test_a_revocation_is_shown_then_noted(hub: Hub, paper: Paper, at_work: Silencer) -> None:
    """What only the newest list names is refused, the device's place is taken: silenced, with the time it took and an entry."""
    certificate = enrolled(hub, "pi-1")
    enrol.revoke(hub, "me", "pi-1")
    seen: list[set[int]] = []
    paper.at_visit = lambda _name: seen.append({one.serial_number for one in lists(hub)[0]})
    answer = at_work.silence("pi-1")
    assert answer["silenced"] and answer["silenced_ms"] >= 0 and answer["missing"] == ""
    assert paper.visits == [silencer.VISITOR, "pi-1"] and paper.told[-1] == {"pi-1"}
    assert certificate.serial_number in seen[0] and len(seen[0]) == 2
    assert row(hub, "pi-1")["silenced_at"] == hub.now()
    with hub.store.read() as tx:
        assert [one["action"] for one in audit.page(tx, 2)] == ["device-revoke", "device-silenced"]


@pytest.mark.parametrize(
    ("listed", "own", "says"),
    [
        ("accepted", "accepted", "older one"), ("refused", "accepted", "older one"), ("revoked", "closed", "did not let"),
        ("revoked", "revoked", "did not let"), ("closed", "closed", "did not let"),
    ],
)  # fmt: skip
def test_what_is_not_shown_is_not_claimed(
    hub: Hub, paper: Paper, at_work: Silencer, listed: Answer, own: Answer, says: str
) -> None:
    """A broker with an old list, and one that lets nobody in after its reload, are no proof; it is tried until they are."""
    enrolled(hub, "pi-1")
    enrol.revoke(hub, "me", "pi-1")
    paper.listed, paper.own = listed, own
    answer = at_work.silence("pi-1")
    assert not answer["silenced"] and says in answer["missing"] and row(hub, "pi-1")["silenced_at"] is None
    shown = threading.Event()
    paper.at_visit = lambda name: shown.set() if name == "pi-1" else None
    paper.listed, paper.own = "revoked", "accepted"
    assert shown.wait(PATIENCE_S)
    assert at_work.silence("pi-1")["silenced"] and row(hub, "pi-1")["silenced_at"]


def test_a_silent_broker_is_named(hub: Hub, paper: Paper, at_work: Silencer) -> None:
    """A broker that does not answer is what is missing."""
    enrolled(hub, "pi-1")
    enrol.revoke(hub, "me", "pi-1")

    def nobody(name: str) -> None:
        raise Unreachable("broker-silent", "the broker did not answer")

    paper.at_visit = nobody
    assert at_work.silence("pi-1") == {"silenced": False, "silenced_ms": None, "missing": "the broker did not answer"}


def test_a_broker_of_somebody_else_is_reported(hub: Hub, paper: Paper, at_work: Silencer) -> None:
    """Where the adapter cannot silence, nothing is claimed and the answer says who must act."""
    enrolled(hub, "pi-1")
    enrol.revoke(hub, "me", "pi-1")
    paper.can_silence = False
    answer = at_work.silence("pi-1")
    assert not answer["silenced"] and answer["missing"] == silencer.UNSUPPORTED and not paper.visits


def test_a_refused_name_is_out_only_where_the_broker_was_told(hub: Hub, paper: Paper, at_work: Silencer) -> None:
    """`refused` counts for a name on the list of names; for a device that has enrolled anew it shows nothing."""
    enrolled(hub, "pi-1")
    paper.own = "refused"
    assert not at_work.silence("pi-1")["silenced"]
    enrol.revoke(hub, "me", "pi-1")
    assert at_work.silence("pi-1")["silenced"]


def test_what_is_asked_during_an_attempt_gets_its_own(hub: Hub, paper: Paper, at_work: Silencer) -> None:
    """A revocation that comes while the same device is being kicked for something else is not covered by that attempt's list."""
    certificate = enrolled(hub, "pi-1")
    asked, listed = [], []

    def visited(name: str) -> None:
        listed.append({one.serial_number for one in lists(hub)[0]})
        if name == "pi-1" and not asked:
            enrol.revoke(hub, "me", "pi-1")
            asked.extend(at_work.ask(["pi-1"]))

    paper.at_visit = visited
    at_work.silence("pi-1")
    assert asked[0].tried.wait(PATIENCE_S) and asked[0].view()["silenced"]
    assert certificate.serial_number not in listed[0] and certificate.serial_number in listed[-1]


def test_a_restarted_manager_finishes(hub: Hub, paper: Paper, at_work: Silencer) -> None:
    """What was revoked and never shown is taken up; what was shown, and who is enrolled, is left alone."""
    for name in ("pi-1", "pi-2", "pi-3"):
        enrolled(hub, name)
    for name in ("pi-1", "pi-2"):
        enrol.revoke(hub, "me", name)
    with hub.store.write() as tx:
        rows.change(tx, devices, {"id": "pi-2"}, silenced_at=1)
    shown = threading.Event()
    paper.at_visit = lambda name: shown.set() if name == "pi-1" else None
    at_work.resume()
    assert shown.wait(PATIENCE_S)
    at_work.silence("pi-1")
    assert row(hub, "pi-1")["silenced_at"] and "pi-2" not in paper.visits and "pi-3" not in paper.visits


def test_who_falls_out_by_himself_is_noticed(hub: Hub, paper: Paper, at_work: Silencer) -> None:
    """A clone that the ingest found is shut out at the next look, and heard again once it is released."""
    enrolled(hub, "pi-1")
    at_work.tell()
    with hub.store.write() as tx:
        rows.change(tx, devices, {"id": "pi-1"}, status="clone")
    shown = threading.Event()
    paper.at_visit = lambda name: shown.set() if name == "pi-1" else None
    at_work.look()
    assert shown.wait(PATIENCE_S) and paper.told[-1] == {"pi-1"}
    with hub.store.write() as tx:
        rows.change(tx, devices, {"id": "pi-1"}, status="enrolled")
    at_work.look()
    assert paper.told[-1] == frozenset()
