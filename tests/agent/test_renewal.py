"""A renewed certificate is believed only for our name and our new key, from a CA of our site; key and certificate stay together."""

import itertools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edgeops.manager import pki
from edgeops.wire.envelope import seal
from edgeops.wire.errors import EdgeopsError, Misuse, Rejected, Unfit, Unreachable
from edgeops.wire.keys import Signer
from edgeops.wire.messages import Bundle, open_report
from edgeops.wire.root import Site
from edgeops_agent.core.record import Record
from edgeops_agent.shell import https, renewal
from edgeops_agent.shell.clock import Clock
from edgeops_agent.shell.credentials import Pair, files_of, join_files, keep_pair, pair_of, read_pair
from edgeops_agent.shell.identity import Paths
from edgeops_agent.shell.reach import Way
from edgeops_agent.shell.upkeep import APART_S, FIRST_S, Bearings, Found, Renewed, Upkeep

from .conftest import NOW, Paper

OURS, FOREIGN = pki.make_ca("berlin", NOW), pki.make_ca("berlin", NOW)
IDENTITY = Signer.from_seed(b"i" * 32)
SITE = Site("berlin", 1, NOW, (OURS.certificate_pem.decode(),), ("mqtts://one:8883",), ("https://one:8443", "https://two:8443"))
DAYS = 30
ROOT = seal("root", {}, [IDENTITY])


def issue(csr: str, ca: pki.Pair = OURS, name: str = "pi-01", now: int = NOW) -> str:
    """What the manager would answer to a signing request."""
    public = x509.load_pem_x509_csr(csr.encode()).public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    return pki.certify(ca, name, public, now, DAYS).public_bytes(Encoding.PEM).decode()


def asked(paper: Paper, key: ec.EllipticCurvePrivateKey) -> str:
    """The signing request in a renewal, checked as the manager does."""
    fields = open_report(renewal.request(paper.trust, IDENTITY, key, 7), "renew", IDENTITY.public)
    assert (fields.text("fleet"), fields.text("device")) == ("berlin", "pi-01")
    assert (fields.number("incarnation"), fields.number("seq")) == (1, 7)
    return fields.text("csr")


def made(now: int = NOW) -> Pair:
    """A pair as a device holds it."""
    key = ec.generate_private_key(ec.SECP256R1())
    return renewal.read_answer(201, {"certificate": issue(asked(Paper(), key), now=now)}, key, Paper().trust, [SITE])


def test_only_a_certificate_for_us_is_believed(paper: Paper) -> None:
    """Another CA, another name, another key, rubbish, and every way of saying no: each by its reason."""
    key, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    csr, site = asked(paper, key), [SITE]
    assert renewal.read_answer(201, {"certificate": issue(csr)}, key, paper.trust, site).key is key
    wrong: tuple[tuple[int, dict[str, object], str], ...] = (
        (201, {"certificate": issue(csr, FOREIGN)}, "bad-certificate"),
        (201, {"certificate": issue(csr, name="x")}, "bad-certificate"),
        (201, {"certificate": issue(asked(paper, other))}, "bad-certificate"), (201, {"certificate": "rubbish"}, "bad-certificate"),
        (201, {}, "bad-certificate"), (202, {"status": "pending"}, "renewal-pending"),
        (403, {"reason": "device-revoked", "detail": "no"}, "device-revoked"), (503, {}, "refused"),
    )  # fmt: skip
    for status, answer, reason in wrong:
        with pytest.raises(EdgeopsError) as error:
            renewal.read_answer(status, answer, key, paper.trust, site)
        assert error.value.reason == reason


def test_a_new_ca_is_believed_with_the_site_that_names_it(paper: Paper) -> None:
    """A certificate of the next CA is good when the answer brings the signed site of that CA, and not with a forged one."""
    key = ec.generate_private_key(ec.SECP256R1())
    changes = {"cas": (OURS.certificate_pem.decode(), FOREIGN.certificate_pem.decode())}
    answer = {"certificate": issue(asked(paper, key), FOREIGN), "site": paper.site(2, **changes).decode()}
    assert renewal.read_answer(201, answer, key, paper.trust, [SITE])
    thief = Paper({**paper.keys, "site": paper.keys["online"]})
    with pytest.raises(Rejected, match="bad-certificate"):
        renewal.read_answer(201, {**answer, "site": thief.site(2, **changes).decode()}, key, paper.trust, [SITE])


def test_the_two_files_of_enrolment_become_one(tmp_path: Path) -> None:
    """Silently, once; while the disk refuses they are used as they are; a pair that does not fit is none."""
    paths, pair = Paths(tmp_path), made()
    paths.tls_key.write_bytes(pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    paths.certificate.write_bytes(pair.certificate.public_bytes(Encoding.PEM))
    assert files_of(paths) == (paths.tls_key, paths.certificate)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Unfit):
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
        join_files(paths)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tls.crt", "tls.key"]
    for _ in range(2):
        join_files(paths)
        assert [path.name for path in tmp_path.iterdir()] == ["tls.pem"]
    assert paths.pair.stat().st_mode & 0o777 == 0o600
    held = read_pair(paths)
    assert held is not None and held.certificate == pair.certificate and files_of(paths) == (paths.pair, paths.pair)
    with pytest.raises(Rejected, match="pair-damaged"):
        pair_of(made().pem, pair.pem)
    paths.pair.write_bytes(b"rubbish")
    assert read_pair(paths) is None


@dataclass
class Desk:
    """An upkeep with a clock and a manager that are told what to be; `says` answers POST, `has` the documents."""

    folder: Path
    paper: Paper = field(default_factory=Paper)
    says: Callable[[str], tuple[int, dict[str, object]]] = lambda csr: (201, {"certificate": issue(csr)})
    has: dict[str, bytes] = field(default_factory=dict)
    expired: int = 0
    at: float = 1000.0
    wall: float = float(NOW)
    connected: bool = True
    refused: int = 0
    posted: list[object] = field(default_factory=list)
    calls: list[tuple[str, str, int | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = Clock(0, lambda: self.wall, lambda: self.at)
        self.paths = Paths(self.folder)
        keep_pair(self.paths, made())
        self.begin()

    def begin(self) -> None:
        """Start the agent's upkeep anew."""
        self.numbers = itertools.count(1)
        self.upkeep = Upkeep(self.paths, IDENTITY, self.clock, self.posted.append, self.numbers.__next__, self.ask, lambda: self.at)

    def ask(self, way: Way, method: str, path: str, body: bytes | None, least: int | None) -> tuple[int, bytes]:
        """The manager's HTTPS side."""
        self.calls.append((method, way.url, least))
        if least is not None and least > NOW + 400 * 86_400:
            raise Unreachable("server-expired", "that long ago")
        if method == "GET":
            kind = path.split("/")[-1].split("?")[0]
            return 200, Bundle(tuple((kind, data) for data in (self.has.get(kind, b""),) if data)).encode()
        assert body is not None
        status, answer = self.says(open_report(body, "renew", IDENTITY.public).text("csr"))
        return status, json.dumps(answer).encode()

    def look(self, seconds: float = 0.0) -> list[object]:
        """Let time pass, look, wait for the errand; what it posted."""
        self.at += seconds
        before = len(self.posted)
        self.upkeep.look(Record(self.paper.trust), lambda: (SITE,), self)  # type: ignore[arg-type]
        if thread := self.upkeep._errand:
            thread.join(20)
        return self.posted[before:]

    def told(self, now: int) -> None:
        """The manager has signed this time."""
        self.clock._anchor = (now, int(self.at))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """One device."""
    return Desk(tmp_path)


def test_renewed_at_two_thirds_by_signed_time_only(desk: Desk) -> None:
    """Not a moment earlier, not because the wall says so; then with a new key, and not again."""
    due, before = NOW - 3600 + (DAYS * 86_400 + 3600) * 2 // 3, read_pair(desk.paths)
    desk.wall = due + 9999.0
    assert not desk.look(100)
    desk.told(due - 5)
    assert not desk.look()
    desk.says = lambda csr: (201, {"certificate": issue(csr, now=due)})
    assert desk.look(5) == [Renewed()]
    after = read_pair(desk.paths)
    assert before and after and after.key.private_numbers() != before.key.private_numbers()
    assert desk.calls[-1] == ("POST", "https://one:8443", due)
    assert not desk.look(3600)


def test_a_device_that_nobody_lets_in_renews(desk: Desk) -> None:
    """Three refusals in a row mean an expired certificate, whatever our clock says; a pair that got lost is asked for."""
    desk.connected, desk.wall, desk.refused = False, 0.0, 2
    assert not desk.look(100)
    desk.refused = 3
    assert desk.look() == [Renewed()]
    desk.paths.pair.unlink()
    desk.begin()
    desk.refused = 0
    assert desk.look(1) == [Renewed()]


def test_no_is_asked_again_less_and_less_often(desk: Desk) -> None:
    """Pending approval or a manager that says no: the old pair stays, and tries come after 5, 10, 20 … seconds up to an hour."""
    before = desk.paths.pair.read_bytes()
    desk.connected, desk.refused = False, 3
    for says in ((202, {"status": "pending"}), (403, {"reason": "device-revoked"})):
        desk.says, desk.calls = (lambda csr, says=says: says), []  # type: ignore[misc]
        for _ in range(86_400 // 60):
            desk.look(60)
        assert 20 < sum(call[0] == "POST" for call in desk.calls) < 60
    assert desk.paths.pair.read_bytes() == before
    desk.says = lambda csr: (201, {"certificate": issue(csr)})
    assert desk.look(3600) == [Renewed()]


def test_only_what_proves_itself_is_fetched_from_a_server_whose_time_is_over(desk: Desk) -> None:
    """A floor in 2038: no certificate is taken from there, but a root that takes it back is; then the renewal goes through."""
    desk.has["root"] = ROOT
    desk.clock.forget(2_147_483_000)
    desk.connected, desk.refused = False, 3
    assert desk.look() == [Found((("root", ROOT),))]
    assert ("GET", "https://one:8443", None) in desk.calls and desk.calls[-1][0] == "POST"
    desk.has.clear()
    desk.clock.forget(NOW)
    assert desk.look(2 * FIRST_S) == [Renewed()]


def test_a_lost_device_asks_for_documents_but_no_crowd_does(desk: Desk) -> None:
    """Orders refused for their date, or ten minutes apart: one question each, further apart; in good times none at all."""
    for _ in range(100):
        assert not desk.look(60)
    assert not desk.calls
    desk.upkeep.lost()
    desk.look()
    assert [call[0] for call in desk.calls] == ["GET", "GET"] * 2  # roots and sites, of both endpoints
    desk.calls, desk.connected = [], False
    desk.look(APART_S - 10)
    assert not desk.calls
    desk.look(20)
    assert [call[0] for call in desk.calls] == ["GET", "GET"] * 2


def test_the_next_manager_is_asked(desk: Desk) -> None:
    """An endpoint that does not answer is passed over."""
    real = desk.ask

    def ask(way: Way, *rest: object) -> tuple[int, bytes]:
        if "one" in way.url:
            raise Unreachable("manager-unreachable", "gone")
        return real(way, *rest)  # type: ignore[arg-type]

    desk.upkeep = Upkeep(desk.paths, IDENTITY, desk.clock, desk.posted.append, desk.numbers.__next__, ask, lambda: desk.at)  # type: ignore[arg-type]
    desk.upkeep.run(Bearings(Record(desk.paper.trust), (SITE,), 1))
    assert desk.posted == [Renewed()] and {call[1] for call in desk.calls} == {"https://two:8443"}


@pytest.mark.parametrize("first", [(200, b"[]"), (404, b"{}"), (200, Bundle(()).encode()), "https://one:99999", "https://[::1"])
def test_an_endpoint_with_nothing_hides_no_root(desk: Desk, first: tuple[int, bytes] | str) -> None:
    """The first endpoint says no, has nothing, or has an address that is none: the second one is asked, and its root is found."""
    real, url = desk.ask, first if isinstance(first, str) else SITE.https[0]
    desk.has["root"] = ROOT

    def ask(way: Way, method: str, *rest: object) -> tuple[int, bytes]:
        if way.url != url:
            return real(way, method, *rest)  # type: ignore[arg-type]
        return https.fetch(way, method, *rest) if isinstance(first, str) else first  # type: ignore[arg-type]

    desk.upkeep._fetch = ask
    desk.upkeep.run(Bearings(Record(desk.paper.trust), (replace(SITE, https=(url, SITE.https[1])),), 0))
    assert desk.posted == [Found((("root", ROOT),))]


def test_a_site_of_replaced_keys_hides_no_newer_one(desk: Desk) -> None:
    """A thief's site had the last version there is; after the root that replaced his keys sites are asked for from the first."""
    asked: list[str] = []

    def ask(way: Way, method: str, path: str, *_rest: object) -> tuple[int, bytes]:
        asked.append(path)
        return 200, Bundle(()).encode()

    desk.upkeep._fetch = ask
    desk.upkeep.run(Bearings(Record(desk.paper.trust), (replace(SITE, version=2**53 - 1, https=SITE.https[:1]),), 0))
    assert asked == ["/api/v1/documents/root?after=1", "/api/v1/documents/site?after=0"]


def test_refusals_are_the_callers(paper: Paper) -> None:
    """What the manager says no to is for an operator to mend, what it cannot do now is not."""
    key = ec.generate_private_key(ec.SECP256R1())
    for status, kind in ((202, Misuse), (403, Misuse), (500, Unreachable)):
        with pytest.raises(kind):
            renewal.read_answer(status, {}, key, paper.trust, [SITE])
