"""What an attacker with a browser, a look-alike body or a well-chosen word might try: none of it is taken for more than it is."""

import json
import logging
from typing import Any

import pytest
from fastapi.testclient import TestClient

from edgeops.api import reference
from edgeops.cli import show
from edgeops.cli.local.up import Plain
from edgeops.manager import status
from edgeops.manager.hub import Hub
from edgeops.wire.keys import sha256

API = "/api/v1"
# A device may call itself anything: colours, a cleared screen, another title, a link, text from right to left, more lines.
NASTY = "x\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp\r\n2026-01-01 INFO all is well\u2028\x00\x7f"


def every_answer(client: TestClient) -> list[Any]:
    """One answer of each kind: done, refused, unknown, not read, not let in."""
    bare = {"authorization": ""}
    return [
        client.get(f"{API}/health", headers=bare), client.get(f"{API}/ca", headers=bare), client.get(f"{API}/devices"),
        client.get(f"{API}/devices", headers=bare), client.get(f"{API}/nothing"), client.post(f"{API}/devices", content=b"{"),
        client.post(f"{API}/tokens", json={"name": "anna", "role": "viewer"}), client.get(f"{API}/openapi.json"),
        client.request("BREW", f"{API}/devices"), client.post(f"{API}/enroll", content=b"x" * 100_000, headers=bare),
    ]  # fmt: skip


def test_every_answer_has_its_manners(client: TestClient) -> None:
    """Nothing is sniffed, run, framed or kept, an answer with a token least of all; nobody is told what we are written in."""
    for answer in every_answer(client):
        assert answer.headers["x-content-type-options"] == "nosniff", answer.url
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store" and answer.headers["referrer-policy"] == "no-referrer"
        assert not {"server", "x-powered-by", "set-cookie"} & set(answer.headers)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://test"])
def test_no_other_origin_is_let_in(client: TestClient, origin: str) -> None:
    """Neither plain requests nor questions beforehand name any origin, method or header; cookies mean nothing."""
    asked = {"origin": origin, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    answers = [client.get(f"{API}/devices", headers={"origin": origin}), client.options(f"{API}/devices", headers=asked)]
    answers.append(client.options(f"{API}/devices", headers=asked | {"authorization": ""}))
    assert [answer.status_code for answer in answers] == [200, 405, 401]
    assert not [name for answer in answers for name in answer.headers if name.startswith("access-control")]
    assert client.get(f"{API}/devices", headers={"authorization": "", "cookie": "token=edgeops_x"}).status_code == 401


def test_a_token_in_the_address_is_none(client: TestClient, admin: str) -> None:
    """Addresses end up in logs: nobody gets used to tokens there."""
    for name in ("token", "access_token", "authorization", "api_key"):
        assert client.get(f"{API}/devices?{name}={admin}", headers={"authorization": ""}).status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "localhost:1\r\nX: y", "", "[::1"])
def test_no_answer_repeats_the_host_it_was_called(client: TestClient, host: str) -> None:
    """Whatever name we are called by stands in no answer: no poisoned links, no redirects."""
    try:
        answer = client.get(f"{API}/devices/", headers={"host": host})
    except ValueError:
        return
    assert answer.status_code == 404 and "evil" not in answer.text and "location" not in answer.headers


def test_bodies_of_operators_hold_what_is_documented_and_nothing_else(client: TestClient) -> None:
    """Every JSON body is closed, but those of devices, which may be newer than we are."""
    found = client.get(f"{API}/openapi.json").json()
    opened = set()
    for method, path, operation in reference.operations(found):
        schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
        name = (schema.get("$ref") or schema.get("allOf", [{}])[0].get("$ref") or "").rsplit("/", 1)[-1]
        if name and found["components"]["schemas"][name].get("additionalProperties") is not False:
            opened.add(f"{method} {path}")
    assert opened <= {"POST /enroll", "POST /renew", "POST /credential", "POST /credential/challenge"}


@pytest.mark.parametrize(
    "field",
    ["status", "incarnation", "identity", "token_hash", "created", "presence", "silenced_at", "role", "__proto__", "counter"],
)
def test_no_field_is_assigned_that_is_not_ours_to_assign(client: TestClient, hub: Hub, field: str) -> None:
    """Columns of the database in a body: refused by name, and nothing changes."""
    client.post(f"{API}/devices", json={"id": "pi-1"}).raise_for_status()
    before = client.get(f"{API}/devices/pi-1").json()
    for answer in (
        client.patch(f"{API}/devices/pi-1", json={"labels": {}, field: 1}),
        client.post(f"{API}/devices", json={"id": "pi-2", field: 1}),
        client.post(f"{API}/tokens", json={"name": "eve", "role": "viewer", "hash": "0" * 64, "public": "0" * 12}),
    ):
        assert (answer.status_code, answer.json()["reason"]) == (422, "validation"), answer.text
    assert client.get(f"{API}/devices/pi-1").json() == before
    assert [one["id"] for one in client.get(f"{API}/devices").json()["devices"]] == ["pi-1"]


INJECTIONS = (
    "'; DROP TABLE devices; --", "site=x' OR '1'='1", "site=berlin OR 1=1", "all; rm -rf /", "site=$(id)", "site=`id`",
    "site={{7*7}}", "site=%s%s%n", "site=\x00", "site=" + "(" * 10_000, "site=a," * 5_000, "all\nall", "site in (a", "*", "%",
)  # fmt: skip


@pytest.mark.parametrize("selector", INJECTIONS, ids=lambda text: text[:12].encode("unicode_escape").decode())
def test_a_selector_is_only_a_selector(client: TestClient, selector: str) -> None:
    """Each is refused as no selector or selects nothing; none reaches the database or takes long."""
    client.post(f"{API}/devices", json={"id": "pi-1", "labels": {"site": "berlin"}}).raise_for_status()
    answer = client.get(f"{API}/devices", params={"selector": selector})
    assert answer.status_code == 400 or answer.json()["devices"] == [], answer.text
    assert len(client.get(f"{API}/devices").json()["devices"]) == 1


def test_one_object_is_not_another_by_its_spelling(client: TestClient, hub: Hub) -> None:
    """Paths, cases and encodings that a file system might read otherwise: only 64 small hexadecimal digits are a name."""
    data = b"an object"
    digest = sha256(data)
    client.put(f"{API}/objects/{digest}", content=data).raise_for_status()
    (hub.layout.blobs / "secret").write_bytes(b"s")
    for name in (
        "../secret", "..%2fsecret", "%2e%2e/secret", "..%5csecret", "%252e%252e%252fsecret", digest.upper(), digest + "%00",
        digest + "/", f"{digest[:2]}/{digest}", f".%2f{digest}", digest + ".tmp",
        "/etc/passwd", "%2fetc%2fpasswd", digest + "%0a", "\uff10" * 64,
    ):  # fmt: skip
        for method in ("GET", "HEAD", "PUT"):
            answer = client.request(method, f"{API}/objects/{name}", content=data if method == "PUT" else None)
            assert answer.status_code in (400, 404, 405), (method, name, answer.status_code)
    files = {path.name for path in hub.layout.root.rglob("*") if path.is_file()}
    assert "passwd" not in files and not [name for name in files if name.endswith((".tmp", "\n"))]


def test_errors_tell_nothing_of_the_inside(client: TestClient, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """No path of this machine, no module, no statement, no line of a traceback, whatever went wrong."""

    def fail(*_args: object) -> None:
        raise RuntimeError(f"SELECT * FROM tokens -- {hub.layout.root} edgeops_secret")

    monkeypatch.setattr(status, "selected", fail)
    answers = [*every_answer(client), *(client.get(API + path) for path in ("/devices", "/releases/x/1", "/objects/x"))]
    assert answers[-3].status_code == 500
    for answer in answers:
        for inner in (str(hub.layout.root), "Traceback", "SELECT", ".py", "sqlalchemy", "edgeops_secret", "RuntimeError"):
            assert answer.url.path.endswith("openapi.json") or inner not in answer.text, (answer.url, inner)


def printable(text: str) -> bool:
    """Whether a terminal shows the text and obeys none of it."""
    return all(char.isprintable() for char in text)


def test_a_terminal_obeys_no_device(capsys: pytest.CaptureFixture[str]) -> None:
    """What devices say of themselves is shown spelt out, on one line, in tables, pairs, plain text and JSON alike."""
    show.print_table(("id", "facts"), [("pi-1", {"name": NASTY, NASTY: 1}), (NASTY, [NASTY])])
    show.pairs({"agent": NASTY, "nested": {"a": [NASTY]}})
    for line in capsys.readouterr().out.split("\n"):
        assert printable(line) and not line.strip().startswith("2026"), line
    encoded = show.encoded({"agent": NASTY})
    assert printable(encoded) and "é" in show.encoded("é")
    assert json.loads(encoded) == {"agent": NASTY}


def test_a_log_line_is_one_line() -> None:
    """A word from a device begins no line of its own in the log, and colours nothing."""
    record = logging.LogRecord("edgeops.api", logging.WARNING, "x.py", 1, "device %s said", (NASTY,), None)
    line = Plain("%(levelname)s %(name)s: %(message)s").format(record)
    assert printable(line) and line.startswith("WARNING edgeops.api: device x")
    try:
        raise ValueError(NASTY)
    except ValueError as error:
        failed = logging.LogRecord("x", logging.ERROR, "x.py", 1, "failed", (), (ValueError, error, error.__traceback__))
    told = Plain("%(message)s").format(failed).split("\n")
    assert all(printable(line) for line in told) and told[0] == "failed" and len(told) > 2
    assert not any(line.startswith("2026") for line in told)
