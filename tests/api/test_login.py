"""`edgeops login` as a person does it: a real manager, a real issuer, a code confirmed elsewhere; and what is kept of it."""

import json
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeops.api.serve import Serving
from edgeops.cli import app, context
from edgeops.cli.device_grant import Issuer, Way, logged_in
from edgeops.manager.login import Login
from edgeops.manager.setup import Setup
from edgeops.wire.errors import EdgeopsError

from .issuers import AUDIENCE, CLIENT, ROLES, Nanoidp, Straw, nanoidp, straw

PATIENCE_S = 60.0
TOKEN = re.compile(r"ey[\w-]{10,}\.[\w-]+|edgeops_[0-9a-f]")


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nanoidp]:
    """The real issuer."""
    with nanoidp(tmp_path_factory.mktemp("issuer") / "idp") as running:
        yield running


@pytest.fixture
def serving(made: Setup, issuer: Nanoidp) -> Iterator[Serving]:
    """The running manager, whose settings name the issuer."""
    settings = made.folder / "edgeops.toml"
    oidc = Login(issuer.url, AUDIENCE, (CLIENT,), ROLES)
    settings.write_text(settings.read_text().replace("oidc = {}", f"oidc = {oidc}"))
    running = Serving(made.folder)
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def contexts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A contexts file of our own."""
    monkeypatch.setenv("EDGEOPS_CONFIG", str(tmp_path / "home" / "contexts.toml"))
    monkeypatch.delenv("EDGEOPS_TOKEN", raising=False)
    return tmp_path / "home" / "contexts.toml"


class Screen:
    """What the command says, line by line, while it runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.text, self._news = "", threading.Condition()
        monkeypatch.setattr("sys.stderr", self)

    def write(self, text: str) -> int:
        """Take some text."""
        with self._news:
            self.text += text
            self._news.notify_all()
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def wait(self, pattern: str) -> str:
        """The first group of a pattern, once it was said."""
        with self._news:
            found = self._news.wait_for(lambda: re.search(pattern, self.text), PATIENCE_S)
        assert found, self.text
        return str(found[1])


@contextmanager
def confirming(issuer: Nanoidp, screen: Screen, user: str, action: str = "authorize") -> Iterator[None]:
    """Somebody at a browser elsewhere, who reads the code off the screen."""
    thread = threading.Thread(target=lambda: issuer.approve(screen.wait(r"code (\S+)\n"), user, action))
    thread.start()
    yield
    thread.join(PATIENCE_S)


def login(made: Setup, serving: Serving, *more: str) -> int:
    """Run the command for a new context."""
    return app.run(["login", "berlin", "--url", serving.url, "--ca", str(made.ca), *more])


@pytest.mark.real
def test_a_person_logs_in(
    made: Setup, serving: Serving, issuer: Nanoidp, contexts: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The token lands in the contexts file, readable by its owner only, and nowhere else; other commands work with it."""
    screen = Screen(monkeypatch)
    with confirming(issuer, screen, "olga"):
        assert login(made, serving, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["name"], told["role"], told["context"]) == ("oidc:olga", "operator", "berlin")
    assert not TOKEN.search(json.dumps(told)) and not TOKEN.search(screen.text)
    assert stat.S_IMODE(contexts.stat().st_mode) == 0o600 and stat.S_IMODE(contexts.parent.stat().st_mode) == 0o700
    assert abs(told["expires"] - time.time() - 3600) < 300
    assert app.run(["device", "register", "pi-1", "--json"]) == 0
    assert app.run(["token", "list", "--json"]) == 2
    assert app.run(["context", "list", "--json"]) == 0
    assert not TOKEN.search(capsys.readouterr().out.partition("contexts")[2])


@pytest.mark.real
def test_an_ended_login_is_renewed_by_itself(
    made: Setup, serving: Serving, issuer: Nanoidp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a refresh token nobody has to log in again; what is current stays so; a withdrawn one asks to log in."""
    screen = Screen(monkeypatch)
    with confirming(issuer, screen, "olga"):
        assert login(made, serving) == 0
    first = context.load().known["berlin"]
    elsewhere = replace(first, name="paris")
    context.save(context.load().renewed(replace(first, token="edgeops_old", expires=int(time.time()) - 5)).added(elsewhere))
    assert app.run(["device", "list", "--context", "berlin", "--json"]) == 0
    second = context.load().known["berlin"]
    assert second.token not in (first.token, "edgeops_old") and second.expires > time.time() + 600
    assert context.load().current == "paris"
    context.save(context.load().renewed(replace(second, refresh="rubbish", expires=1)))
    capsys.readouterr()
    assert app.run(["device", "list", "--context", "berlin", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["reason"] == "login-expired"


@pytest.mark.real
@pytest.mark.parametrize(
    ("user", "action", "reason", "code"), [("olga", "deny", "login-refused", 2), ("nemo", "authorize", "oidc-role", 2)]
)
def test_who_is_refused_has_no_context(
    made: Setup, serving: Serving, issuer: Nanoidp, contexts: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], user: str, action: str, reason: str, code: int,
) -> None:  # fmt: skip
    """Denied at the issuer, or without a role here: said plainly, and nothing is stored."""
    screen = Screen(monkeypatch)
    with confirming(issuer, screen, user, action):
        assert login(made, serving, "--json") == code
    assert json.loads(capsys.readouterr().out)["error"]["reason"] == reason
    assert not contexts.exists()


@pytest.mark.real
def test_the_environment_s_token_goes_first(
    made: Setup, serving: Serving, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """$EDGEOPS_TOKEN is used instead of the context's and never stored; a wrong one is not replaced by the right one."""
    context.save(context.load().added(context.Context("m", serving.url, str(made.ca), "edgeops_wrong")))
    assert app.run(["device", "list", "--json"]) == 2
    monkeypatch.setenv("EDGEOPS_TOKEN", made.admin_token + "\n")
    assert app.run(["device", "list", "--json"]) == 0
    assert made.admin_token not in context.path().read_text() and made.admin_token not in capsys.readouterr().out
    context.save(context.load().added(context.Context("m", serving.url, str(made.ca), made.admin_token)))
    monkeypatch.setenv("EDGEOPS_TOKEN", "edgeops_wrong")
    assert app.run(["device", "list", "--json"]) == 2


DEVICE = {"device_code": "secret", "user_code": "ABCD", "verification_uri": "https://i.example/device", "expires_in": 60}


@pytest.fixture
def made_up() -> Iterator[Straw]:
    """A straw issuer that knows the device grant."""
    with straw() as running:
        running.discovery |= {
            "device_authorization_endpoint": f"{running.url}/device", "token_endpoint": f"{running.url}/token",
        }  # fmt: skip
        yield running


def reason_of(body: Callable[[], Any]) -> str:
    """Why something is refused."""
    with pytest.raises(EdgeopsError) as caught:
        body()
    return caught.value.reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"verification_uri": "http://evil.example/"}, "issuer-odd"), ({"verification_uri": "javascript:alert(1)"}, "issuer-odd"),
        ({"user_code": None}, ""), ({"device_code": ...}, "issuer-odd"), ({"expires_in": "soon"}, "issuer-odd"),
        ({"error": "invalid_client"}, "issuer-odd"),
    ],
)  # fmt: skip
def test_what_an_issuer_says_is_looked_at_before_it_is_shown(made_up: Straw, change: dict[str, Any], reason: str) -> None:
    """Addresses a person is sent to are https; half answers are no login."""
    told = {name: value for name, value in (DEVICE | change).items() if value is not ...}
    made_up.posts["/device"] = [(400 if "error" in change else 200, told)]
    issuer = Issuer(Way(made_up.url, CLIENT, AUDIENCE))
    try:
        if reason:
            assert reason_of(issuer.ask) == reason
        else:
            assert issuer.ask().where == DEVICE["verification_uri"]
    finally:
        issuer.close()


def test_patience_is_as_the_issuer_asks(made_up: Straw) -> None:
    """Pending: again after the interval; told to slow down: five seconds more each time; then the tokens."""
    waits: list[float] = []
    made_up.posts["/device"] = [(200, DEVICE | {"interval": 2, "expires_in": 10**6})]
    errors = ("authorization_pending", "slow_down", "authorization_pending", "slow_down")
    made_up.posts["/token"] = [*((400, {"error": error}) for error in errors), (200, {"access_token": "t", "expires_in": 60})]
    issuer = Issuer(Way(made_up.url, CLIENT, AUDIENCE), waits.append)
    told = issuer.wait(issuer.ask())
    issuer.close()
    assert waits == [2, 2, 7, 7, 12] and told["access_token"] == "t"
    assert made_up.forms["/token"][0] == {
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": "secret", "client_id": CLIENT,
    }  # fmt: skip
    assert made_up.forms["/device"][0]["audience"] == AUDIENCE


@pytest.mark.parametrize(("error", "reason"), [("access_denied", "login-refused"), ("expired_token", "login-expired")])
def test_an_end_is_an_end(made_up: Straw, error: str, reason: str) -> None:
    """Refused or too late: not asked again."""
    made_up.posts["/device"], made_up.posts["/token"] = [(200, DEVICE)], [(400, {"error": error})]
    issuer = Issuer(Way(made_up.url, CLIENT, AUDIENCE), lambda _seconds: None)
    asked = issuer.ask()
    assert reason_of(lambda: issuer.wait(asked)) == reason
    issuer.close()


def test_secrets_go_nowhere_in_the_clear(made_up: Straw) -> None:
    """An issuer that names an endpoint without TLS on another machine gets nothing; neither does one without device login."""
    made_up.discovery["token_endpoint"] = "http://192.0.2.1/token"
    issuer = Issuer(Way(made_up.url, CLIENT, AUDIENCE))
    assert reason_of(lambda: issuer.refresh("r")) == "issuer-odd"
    issuer.close()
    del made_up.discovery["device_authorization_endpoint"]
    issuer = Issuer(Way(made_up.url, CLIENT, AUDIENCE))
    assert reason_of(issuer.ask) == "no-device-login"
    issuer.close()
    assert reason_of(lambda: Issuer(Way("http://i.example", CLIENT, AUDIENCE))) == "issuer-odd"


def test_the_right_one_of_the_tokens_is_kept() -> None:
    """The access token, or the ID token where the audience is the client; a secret never stands in a repr."""
    given = context.Context("m", "https://m", "ca", "")
    told = {"access_token": "A", "id_token": "I", "refresh_token": "R", "expires_in": 60}
    assert logged_in(given, Way("https://i", CLIENT, AUDIENCE), told).token == "A"
    kept = logged_in(given, Way("https://i", CLIENT, CLIENT), told)
    assert (kept.token, kept.refresh) == ("I", "R") and "'I'" not in repr(kept) and "'R'" not in repr(kept)
    assert reason_of(lambda: logged_in(given, Way("https://i", CLIENT, CLIENT), {"access_token": "A"})) == "issuer-odd"
