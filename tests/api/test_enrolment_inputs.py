"""Ways to ask wrongly for an identity, at the real thing: HTTPS, certificates, a broker. Each gets the answer it should have."""

import concurrent.futures
import contextlib
import datetime as dt
import secrets
import sqlite3
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from manager_house import Clock, FakeDevice, new_manager

from edgeops.api.enroll import WRONG, Strangers
from edgeops.api.serve import Serving
from edgeops.manager import checkpoints, enrol
from edgeops.wire import topics
from edgeops.wire.chain import Finding, check_chain, read_checkpoints, root_chain
from edgeops.wire.messages import SlotReport
from edgeops.wire.token import Token

from ..conftest import Score

pytestmark = pytest.mark.real
JSON = {"content-type": "application/json"}


@dataclass
class Place:
    """A manager that is up, its clock, and a client that may do everything."""

    serving: Serving
    http: httpx.Client
    clock: Clock
    folder: Path

    def send(self, sealed: bytes, where: str = "enroll", **headers: str) -> httpx.Response:
        """An envelope of a stranger."""
        return self.http.post(f"/{where}", content=sealed, headers={"authorization": ""} | JSON | headers)

    def register(self, **more: Any) -> Token:
        """A new device's token."""
        answer = self.http.post("/devices", json={"id": f"d-{secrets.token_hex(4)}", **more})
        return Token.decode(answer.raise_for_status().json()["token"])

    def enrolled(self) -> tuple[FakeDevice, Token, httpx.Response]:
        """A device, its spent token and what it was given."""
        token = self.register()
        device = FakeDevice(token.device)
        return device, token, self.send(device.enrolment(token.secret)).raise_for_status()

    def with_csr(self, csr: str) -> httpx.Response:
        """An enrolment that is right but for its signing request; afterwards the token must still work."""
        token = self.register()
        device = FakeDevice(token.device)
        answer = self.send(device.enrolment(token.secret, csr=csr))
        assert self.send(device.enrolment(token.secret)).status_code == 201
        return answer


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One manager for all rows."""
    clock = Clock(int(time.time()))
    made = new_manager(tmp_path_factory.mktemp("site") / "m", clock.now)
    serving = Serving(made.folder, clock)
    context = ssl.create_default_context(cafile=made.ca)
    headers = {"authorization": f"Bearer {made.admin_token}"}
    with httpx.Client(base_url=serving.url + "/api/v1", verify=context, headers=headers, trust_env=False, timeout=30) as http:
        yield Place(serving, http, clock, made.folder)
    serving.stop()


@pytest.fixture(autouse=True)
def unknown(place: Place) -> None:
    """Each row begins as a stranger nobody has heard of."""
    strangers(place)


def strangers(place: Place) -> None:
    """Forget who was wrong before."""
    place.serving._server.config.app.state.strangers = Strangers()  # type: ignore[union-attr]


def csr(*parts: x509.NameAttribute, key: Any = None, extension: x509.ExtensionType | None = None) -> str:
    """A signing request."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(parts))
    builder = builder.add_extension(extension, critical=False) if extension else builder
    return builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def named(name: str) -> str:
    """A signing request with this common name, whatever the rules for names say."""
    return csr(x509.NameAttribute(NameOID.COMMON_NAME, name, _ASN1Type.UTF8String, _validate=False))


def no_token(place: Place) -> httpx.Response:
    """A device that is registered, without its secret."""
    token = place.register()
    return place.send(FakeDevice(token.device).enrolment(""))


def garbled_token(place: Place) -> httpx.Response:
    """A secret with a letter too few."""
    token = place.register()
    return place.send(FakeDevice(token.device).enrolment(token.secret[:-1]))


def unknown_token(place: Place) -> httpx.Response:
    """A secret nobody issued."""
    token = place.register()
    return place.send(FakeDevice(token.device).enrolment(secrets.token_hex(32)))


def unknown_device(place: Place) -> httpx.Response:
    """A device nobody registered."""
    return place.send(FakeDevice("ghost").enrolment(secrets.token_hex(32)))


def expired_token(place: Place) -> httpx.Response:
    """A token in the second it ends."""
    token = place.register(ttl_s=60)
    place.clock.now = token.expires
    return place.send(FakeDevice(token.device).enrolment(token.secret))


def used_token(place: Place) -> httpx.Response:
    """A spent token in another's hands."""
    device, token, _ = place.enrolled()
    return place.send(FakeDevice(device.id).enrolment(token.secret))


def revoked_token(place: Place) -> httpx.Response:
    """A token of a device that was revoked before it came."""
    token = place.register()
    place.http.post(f"/devices/{token.device}/revoke").raise_for_status()
    return place.send(FakeDevice(token.device).enrolment(token.secret))


def token_of_another(place: Place) -> httpx.Response:
    """A good secret under another device's name."""
    mine, other = place.register(), place.register()
    return place.send(FakeDevice(other.device).enrolment(mine.secret))


REFUSED = (
    no_token, garbled_token, unknown_token, unknown_device, expired_token, used_token, revoked_token, token_of_another,
)  # fmt: skip


def bad_signature(place: Place) -> httpx.Response:
    """A signing request whose signature was touched."""
    der = bytearray(x509.load_pem_x509_csr(csr().encode()).public_bytes(Encoding.DER))
    der[-1] ^= 1
    return place.with_csr(x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM).decode())


def short_rsa(place: Place) -> httpx.Response:
    """An RSA key of 1024 bits."""
    return place.with_csr(csr(key=rsa.generate_private_key(65537, 1024)))


def unknown_curve(place: Place) -> httpx.Response:
    """A key on a curve of somebody else's choice."""
    return place.with_csr(csr(key=ec.generate_private_key(ec.SECP256K1())))


def wants_to_be_ca(place: Place) -> httpx.Response:
    """CA:TRUE."""
    return place.with_csr(csr(extension=x509.BasicConstraints(ca=True, path_length=None)))


def wants_another_name(place: Place) -> httpx.Response:
    """A second name in an extension."""
    return place.with_csr(csr(extension=x509.SubjectAlternativeName([x509.DNSName("manager")])))


def odd_name(place: Place) -> httpx.Response:
    """Common names with characters that mean something to a broker."""
    answers = [place.with_csr(named(f"a{odd}b")) for odd in "/+#\0 "]
    assert {answer.status_code for answer in answers} == {400}
    return answers[0]


def long_name(place: Place) -> httpx.Response:
    """A common name of 65 bytes."""
    return place.with_csr(named("x" * 65))


def foreign_name(place: Place) -> httpx.Response:
    """A common name beyond ASCII."""
    return place.with_csr(named("gerät"))


def giant_body(place: Place) -> httpx.Response:
    """A body beyond 16 KB, announced or not."""
    streamed = place.http.post("/enroll", content=iter([b" " * 9_000] * 2), headers=JSON)
    assert (streamed.status_code, streamed.json()["reason"]) == (413, "too-large")
    return place.send(b" " * (16 * 1024 + 1))


def other_type(place: Place) -> httpx.Response:
    """The right bytes, called something else."""
    token = place.register()
    return place.send(FakeDevice(token.device).enrolment(token.secret), **{"content-type": "text/plain"})


def renew_revoked(place: Place) -> httpx.Response:
    """A renewal by a device that was revoked."""
    device, _, _ = place.enrolled()
    place.http.post(f"/devices/{device.id}/revoke").raise_for_status()
    return place.send(device.renewal(), "renew")


def renew_as_another(place: Place) -> httpx.Response:
    """A renewal for another's name: in the request, and in the signing request."""
    device, other = place.enrolled()[0], place.enrolled()[0]
    answer = place.send(device.renewal(device=other.id), "renew")
    assert (answer.status_code, answer.json()["reason"]) == (403, "renew-refused")
    return place.send(device.renewal(csr=device.csr(other.id)), "renew")


def viewer_writes(place: Place) -> httpx.Response:
    """A viewer's token, an operator's act."""
    answer = place.http.post("/tokens", json={"name": secrets.token_hex(4), "role": "viewer"}).raise_for_status().json()
    return place.http.post("/devices", json={"id": "x"}, headers={"authorization": f"Bearer {answer['token']}"})


def expired_api_token(place: Place) -> httpx.Response:
    """An operator's token after its end."""
    name = secrets.token_hex(4)
    answer = place.http.post("/tokens", json={"name": name, "role": "operator", "ttl_s": 60}).raise_for_status().json()
    place.clock.now += 61
    return place.http.get("/devices", headers={"authorization": f"Bearer {answer['token']}"})


def many_wrong(place: Place) -> httpx.Response:
    """A hundred wrong tokens within a minute; an honest device from the same address is heard all the same."""
    wrong = FakeDevice("ghost").enrolment(secrets.token_hex(32))
    codes = [place.send(wrong).status_code for _ in range(99)]
    assert codes[:WRONG] == [401] * WRONG and codes.count(429) >= 99 - WRONG - 20
    assert place.enrolled()[2].status_code == 201
    answer = place.send(wrong)
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    return answer


def id_of_the_dead(place: Place) -> httpx.Response:
    """The id of a decommissioned device; with `reissue` it may be used again."""
    device, _, _ = place.enrolled()
    place.http.post(f"/devices/{device.id}/decommission").raise_for_status()
    answer = place.http.post("/devices", json={"id": device.id})
    assert place.http.post("/devices", json={"id": device.id, "reissue": True}).status_code == 201
    return answer


ROWS: list[tuple[Callable[[Place], httpx.Response], int, str]] = [
    *((row, 401, "token-refused") for row in REFUSED),
    (bad_signature, 400, "bad-csr"), (short_rsa, 400, "bad-csr"), (unknown_curve, 400, "bad-csr"), (wants_to_be_ca, 400, "bad-csr"),
    (wants_another_name, 400, "bad-csr"), (odd_name, 400, "bad-csr"), (long_name, 400, "bad-csr"), (foreign_name, 400, "bad-csr"),
    (giant_body, 413, "too-large"), (other_type, 415, "not-json"), (renew_revoked, 403, "device-revoked"),
    (renew_as_another, 403, "wrong-name"), (viewer_writes, 403, "role"), (expired_api_token, 401, "token-expired"),
    (many_wrong, 429, "too-many"), (id_of_the_dead, 409, "device-decommissioned"),
]  # fmt: skip


@pytest.mark.parametrize(("ask", "status", "reason"), ROWS, ids=lambda value: getattr(value, "__name__", ""))
def test_each_input_gets_its_answer(
    place: Place, ask: Callable[[Place], httpx.Response], status: int, reason: str, score: Score
) -> None:
    """Status and reason of one row."""
    answer = ask(place)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason), answer.text
    score.refused(f"enrol-{ask.__name__.replace('_', '-')}", f"{status} {reason}")


def test_all_refused_tokens_look_the_same(place: Place) -> None:
    """No answer tells whether the device, the token or its state was wrong; all of them compare, in constant time."""
    answers = []
    for ask in REFUSED:
        strangers(place)
        answers.append(ask(place))
    assert len({(answer.status_code, answer.content) for answer in answers}) == 1


def test_two_enrolments_racing_for_one_token(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both pass the first look; exactly one gets the certificate, the other a conflict."""
    token, both = place.register(), threading.Barrier(2)
    real = enrol.read_request

    def meet(pem: str) -> Any:
        both.wait(20)
        return real(pem)

    monkeypatch.setattr(enrol, "read_request", meet)
    asks = [FakeDevice(token.device).enrolment(token.secret) for _ in range(2)]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(place.send, asks))
    assert sorted(answer.status_code for answer in answers) == [201, 409]
    assert next(answer for answer in answers if answer.status_code == 409).json()["reason"] == "token-raced"
    assert place.http.get(f"/devices/{token.device}").json()["incarnation"] == 1


def test_a_device_whose_clock_is_late_can_use_its_certificate(place: Place) -> None:
    """The certificate is valid from an hour ago."""
    pem = place.enrolled()[2].json()["certificate"].encode()
    begins = x509.load_pem_x509_certificate(pem).not_valid_before_utc
    assert dt.datetime.fromtimestamp(place.clock.now, dt.UTC) - begins == dt.timedelta(hours=1)


def test_what_a_decommissioned_device_sends_is_dropped_and_told_once(place: Place) -> None:
    """Its signed reports change nothing; the audit log has one line of them."""
    device, _, _ = place.enrolled()
    place.http.post(f"/devices/{device.id}/decommission").raise_for_status()
    for _ in range(5):
        report = device.state({"main": SlotReport("idle", "digits", 9, "f" * 64)})
        place.serving.running.ingest.take(topics.up(device.id, "state"), report)
    assert place.http.get(f"/devices/{device.id}").json()["reported"] == {}
    found = place.http.get("/audit", params={"action": "device-after-end", "limit": 1000}).json()["audit"]
    assert [entry["subject"] for entry in found].count(device.id) == 1
    assert place.serving.running.ingest.counts["refused.decommissioned"] >= 5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("update audit set detail = 'x' where id = :n", "audit-altered"), ("delete from audit where id = :n", "audit-missing"),
        ("update audit set id = case id when :n then -1 else :n end where id in (:n, :n + 1)", "audit-"),
        ("delete from audit where id >= :n", "audit-cut"),
    ],
    ids=["altered", "removed", "swapped", "cut"],
)  # fmt: skip
def test_a_touched_audit_log_names_its_first_bad_entry(place: Place, change: str, reason: str) -> None:
    """Whoever has the database and not the checkpoints: an auditor who asks over HTTPS is told where the log goes wrong."""
    for _ in range(4):
        place.register()
    checkpoints.make(place.serving.running.hub)
    kept = place.http.get("/audit/checkpoints").json()
    last = max(row["entry"] for row in kept["checkpoints"])
    with tampered(place, change, last - 2):
        finding = audited(place, kept)
    assert finding is not None and finding.reason.startswith(reason) and finding.entry == last - 2
    assert audited(place, kept) is None


@contextlib.contextmanager
def tampered(place: Place, change: str, number: int) -> Iterator[None]:
    """The database as somebody with a shell on the machine would leave it; as it was, afterwards."""
    names = "id, at, who, action, subject, detail, previous, digest"
    with contextlib.closing(sqlite3.connect(next(place.folder.glob("*.db")))) as database:
        before = database.execute(f"select {names} from audit").fetchall()
        with database:
            database.execute(change, {"n": number})
            database.execute("update audit set id = :n + 1 where id = -1", {"n": number})
        yield
        with database:
            database.execute("delete from audit")
            database.executemany(f"insert into audit ({names}) values (?, ?, ?, ?, ?, ?, ?, ?)", before)


def audited(place: Place, kept: dict[str, Any]) -> Finding | None:
    """What an auditor finds who has kept checkpoints."""
    entries = place.http.get("/audit", params={"after": 0, "limit": 10_000}).raise_for_status().json()["audit"]
    fleet, keys, _ = root_chain([root.encode() for root in kept["roots"]], None)
    found, _ = read_checkpoints([row["envelope"].encode() for row in kept["checkpoints"]], fleet, keys, "kept")
    return check_chain(entries, found).finding


def test_no_answer_and_no_log_holds_a_secret(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Tokens are told once, to who made them; of keys only fingerprints are told; the log knows neither."""
    caplog.set_level("DEBUG")
    device, token, given = place.enrolled()
    place.send(FakeDevice(device.id).enrolment(token.secret))
    place.send(device.renewal(), "renew")
    private = [token.secret, device.tls_pem().decode().splitlines()[1]]
    for path in (place.folder / "keys", place.folder / "pki"):
        private += [key.read_text().splitlines()[1] for key in path.glob("*.key")]
        assert {key.stat().st_mode & 0o777 for key in path.glob("*.key")} == {0o600}
    texts = [given.text, caplog.text, *(record.getMessage() for record in caplog.records)]
    for path in place.http.get("/openapi.json").json()["paths"]:
        where = path.removeprefix("/api/v1").replace("{device}", device.id)
        texts.append(place.http.get(where, params={"limit": 1000}).text)
    assert len(private) > 6 and len(texts) > 20
    assert [secret for secret in private if any(secret in text for text in texts)] == []
    assert not any("PRIVATE KEY" in text for text in texts)
