"""What an issuer may send when it is asked for its keys: little, soon, as JSON, over https, about itself."""

import contextlib
import json
import socket
import ssl
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from edgeops.api import issuer as issuer_room
from edgeops.api import login as login_room
from edgeops.api.issuer import Issuer
from edgeops.manager import pki
from edgeops.manager.hub import Hub
from edgeops.manager.login import Login, login_from
from edgeops.manager.settings import Settings, dump, settings_from
from edgeops.wire.errors import Misuse, Unreachable

from .issuers import Straw, straw


@pytest.fixture
def made_up() -> Iterator[Straw]:
    """A straw issuer."""
    with straw() as running:
        yield running


def asked(url: str) -> str:
    """The reason why no key comes from there."""
    with pytest.raises(Unreachable) as caught:
        Issuer(url).key("k")
    return caught.value.reason


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://other.example"}, {"issuer": None}, {"jwks_uri": None}, {"jwks_uri": 7}, {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "http://192.0.2.1/keys"}, {"jwks_uri": "http://[::1/"}, {"jwks_uri": "ftp://127.0.0.1/"}, {"jwks_uri": "https://"},
    ],
)  # fmt: skip
def test_an_odd_discovery_document_is_refused(made_up: Straw, document: dict[str, Any]) -> None:
    """Of another issuer, or naming keys where we do not look: other schemes, other machines in the clear."""
    made_up.discovery |= document
    assert asked(made_up.url) == "issuer-odd" and made_up.asked == 1


@pytest.mark.parametrize("keys", [None, {}, "x", [{}] * 101])
def test_odd_key_sets_are_refused(made_up: Straw, keys: Any) -> None:
    """No list, or one without end."""
    made_up.keys = keys
    assert asked(made_up.url) == "issuer-odd"


def raw(data: bytes, status: int = 200, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer of these bytes."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (raw(b"{"), "issuer-odd"), (raw(b"[]"), "issuer-odd"), (raw(b"\xff"), "issuer-odd"), (raw(b"[" * 100_000), "issuer-odd"),
        (raw(b"", 404), "issuer-away"), (raw(b"", 302, location="https://evil.example/"), "issuer-away"),
        (raw(b" " * (300 << 10)), "issuer-odd"),
    ],
)  # fmt: skip
def test_odd_answers_are_refused(made_up: Straw, answer: Callable[[BaseHTTPRequestHandler], None], reason: str) -> None:
    """No JSON, none deeper than a stack, no redirect, nothing without end."""
    made_up.answer = answer
    assert asked(made_up.url) == reason and made_up.asked == 1


def test_a_slow_issuer_is_given_up(made_up: Straw, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then never ends by itself; we end it."""
    monkeypatch.setattr(issuer_room, "PATIENCE_S", 0.3)
    ended = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while not ended.wait(0.05):
                handler.wfile.write(b" ")

    made_up.answer = drip
    try:
        assert asked(made_up.url) == "issuer-odd"
    finally:
        ended.set()


def test_nobody_there(made_up: Straw) -> None:
    """A closed port, and after three tries the rest without asking."""
    issuer = Issuer("http://127.0.0.1:9")
    for _ in range(5):
        with pytest.raises(Unreachable, match="127"):
            issuer.key("k")
    assert made_up.asked == 0


def test_one_asks_and_the_others_do_not_wait(made_up: Straw) -> None:
    """While an unknown key is looked for, known ones are answered, and other unknown ones told to come back."""
    made_up.keys = [{"kid": "k", "kty": "RSA"}]
    issuer, reached, go = Issuer(made_up.url), threading.Event(), threading.Event()
    issuer.key("k")

    def wait(handler: BaseHTTPRequestHandler) -> None:
        reached.set()
        go.wait(30)
        raw(b"{}")(handler)

    made_up.answer = wait
    thread = threading.Thread(target=_quietly, args=(issuer,))
    thread.start()
    try:
        assert reached.wait(30)
        assert issuer.key("k")["kty"] == "RSA"
        with pytest.raises(Unreachable) as caught:
            issuer.key("third")
        assert caught.value.reason == "issuer-busy"
    finally:
        go.set()
        thread.join(30)


def _quietly(issuer: Issuer) -> None:
    with contextlib.suppress(Unreachable):
        issuer.key("other")


def test_https_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An issuer whose certificate nobody vouches for is not believed; with its CA among the machine's it is."""
    ca = pki.make_ca("issuers", int(time.time()))
    server = pki.make_server(ca, ("127.0.0.1",), int(time.time()))
    for name, data in (("ca", ca.certificate_pem), ("crt", server.certificate_pem), ("key", server.key_pem)):
        (tmp_path / name).write_bytes(data)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")

    def wrap(plain: socket.socket) -> socket.socket:
        return context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)

    with straw(wrap) as made_up:
        made_up.keys = [{"kid": "k", "kty": "RSA"}]
        assert asked(made_up.url) == "issuer-away"
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca"))
        assert Issuer(made_up.url).key("k")["kty"] == "RSA"
        made_up.discovery["jwks_uri"] = made_up.url.replace("https", "http") + "/keys"
        assert asked(made_up.url) == "issuer-odd"


WHOLE = {
    "issuer": "https://login.example/realms/x", "audience": "edgeops", "clients": ["edgeops-cli"], "roles": ["groups a admin"],
}  # fmt: skip


def test_the_setting_is_whole_or_absent() -> None:
    """Nothing is nobody; a whole one is kept, as it is written too."""
    assert login_from({}) == Login() and login_from({"issuer": "", "clients": []}) == Login()
    login = login_from(WHOLE)
    assert login.rules[0].role == "admin" and login.clients == ("edgeops-cli",)
    assert str(login) == (
        '{issuer = "https://login.example/realms/x", audience = "edgeops", clients = ["edgeops-cli"], roles = ["groups a admin"]}'
    )


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "http://login.example"}, {"issuer": ""}, {"issuer": "https://a@b"}, {"issuer": "https://a?b"}, {"issuer": 7},
        {"issuer": "login.example"}, {"audience": ""}, {"clients": []}, {"clients": "edgeops-cli"}, {"roles": []},
        {"roles": ["admin"]}, {"roles": ["groups a root"]}, {"roles": [7]}, {"secret": "x"},
    ],
)  # fmt: skip
def test_a_setting_that_would_let_anybody_in_is_refused(change: dict[str, Any]) -> None:
    """In the clear, without audience, client or roles, with unknown roles or names."""
    with pytest.raises(Misuse) as caught:
        login_from(WHOLE | change)
    assert caught.value.reason == "setting-invalid"


def test_a_written_setting_reads_as_the_same() -> None:
    """As `edgeops init` writes it, and as a table of its own."""
    given = replace(Settings(), oidc=login_from(WHOLE))
    assert settings_from(tomllib.loads(dump(given))) == given
    lines = [line for line in dump(given).splitlines() if not line.startswith("oidc")]
    table = ["[oidc]", *(f"{name} = {json.dumps(value)}" for name, value in WHOLE.items())]
    assert settings_from(tomllib.loads("\n".join([*lines, *table]))) == given


def test_without_the_extra_the_manager_says_what_to_install(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it starts, not when the first person comes; without the setting nothing is missing."""
    monkeypatch.setattr(login_room, "find_spec", lambda _name: None)
    assert login_room.bearers(hub) is None
    with pytest.raises(Misuse, match=r"edgeops\[oidc\]"):
        login_room.bearers(replace(hub, settings=replace(hub.settings, oidc=login_from(WHOLE))))
