"""Logging in with OpenID Connect, against a real issuer: honest people come in with their role, and nobody else does."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi.testclient import TestClient

from edgeops.api import door
from edgeops.api.app import make_app
from edgeops.manager.hub import Hub
from edgeops.manager.login import Login

from ..conftest import Score
from .issuers import AUDIENCE, CLIENT, ROLES, Nanoidp, Straw, nanoidp, public_jwk, straw, unsigned

API = "/api/v1"
STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nanoidp]:
    """The real issuer."""
    with nanoidp(tmp_path_factory.mktemp("issuer") / "idp") as running:
        yield running


@contextmanager
def accepting(hub: Hub, url: str, **other: Any) -> Iterator[TestClient]:
    """A manager that accepts an issuer's tokens, by the clock on the wall, as the issuer does."""
    login = replace(Login(url, AUDIENCE, (CLIENT,), ROLES), **other)
    with TestClient(
        make_app(replace(hub, settings=replace(hub.settings, oidc=login), now=lambda: int(time.time()))),
        "https://test", raise_server_exceptions=False,
    ) as client:  # fmt: skip
        yield client


@pytest.fixture
def manager(hub: Hub, issuer: Nanoidp) -> Iterator[TestClient]:
    """A manager that accepts the real issuer's tokens."""
    with accepting(hub, issuer.url) as client:
        yield client


def ask(client: TestClient, token: str, path: str = "/whoami") -> Any:
    """Ask with a bearer token."""
    return client.get(API + path, headers={"authorization": f"Bearer {token}"})


def said(answer: Any) -> tuple[int, str]:
    """Status and reason."""
    return answer.status_code, answer.json().get("reason", "")


def claims(issuer: Nanoidp, **other: Any) -> dict[str, Any]:
    """The claims of an honest access token, some changed; None leaves one out."""
    now = int(time.time())
    honest = {
        "iss": issuer.url, "sub": "anna", "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 600, "client_id": CLIENT,
        "groups": ["fleet-admins"], "token_use": "access",
    }  # fmt: skip
    return {name: value for name, value in {**honest, **other}.items() if value is not None}


def signed(issuer: Nanoidp, header: dict[str, Any] | None = None, **other: Any) -> str:
    """A token signed with the issuer's own key: nothing is wrong with it but what a test changes."""
    return jwt.encode(claims(issuer, **other), issuer.key, "RS256", {"kid": issuer.kid, **(header or {})})


def by_hand(issuer: Nanoidp, header: dict[str, Any], **other: Any) -> str:
    """The same, for what the library would not make."""
    text = unsigned({"alg": "RS256", "typ": "JWT", "kid": issuer.kid, **header}, claims(issuer) | other).rstrip(".")
    signature = issuer.key.sign(text.encode(), PKCS1v15(), SHA256())
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def by_public_key_as_secret(issuer: Nanoidp, encoding: Encoding) -> str:
    """HS256 with the issuer's public key, which everybody has, for the secret."""
    secret = issuer.key.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
    return by_hmac(issuer, secret)


def by_hmac(issuer: Nanoidp, secret: bytes) -> str:
    """A token authenticated with a shared secret."""
    text = unsigned({"alg": "HS256", "typ": "JWT", "kid": issuer.kid}, claims(issuer)).rstrip(".")
    mac = hmac.new(secret, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def with_embedded_key(issuer: Nanoidp) -> str:
    """Signed with a stranger's key that the header itself brings along."""
    header = {"kid": issuer.kid, "jwk": public_jwk(STRANGER)}
    return jwt.encode(claims(issuer), STRANGER, "RS256", header)


def broken(issuer: Nanoidp) -> str:
    """An honest token in which another role was written."""
    head, _, signature = signed(issuer).split(".")
    body = base64.urlsafe_b64encode(json.dumps(claims(issuer, sub="eve")).encode()).rstrip(b"=").decode()
    return f"{head}.{body}.{signature}"


@dataclass(frozen=True)
class Attack:
    """One way to come in without being let in: what is presented, and the answer it must get."""

    name: str
    make: Callable[[Nanoidp], str]
    reason: str
    status: int = 401


HOUR = 3600
ATTACKS = (
    Attack("alg-none", lambda i: unsigned({"alg": "none", "typ": "JWT", "kid": i.kid}, claims(i)), "oidc-algorithm"),
    Attack("alg-none-spelt-oddly", lambda i: unsigned({"alg": "nOnE", "typ": "JWT", "kid": i.kid}, claims(i)), "oidc-algorithm"),
    Attack("alg-missing", lambda i: unsigned({"typ": "JWT", "kid": i.kid}, claims(i)), "oidc-algorithm"),
    Attack("hs256-with-public-key-pem", lambda i: by_public_key_as_secret(i, Encoding.PEM), "oidc-algorithm"),
    Attack("hs256-with-public-key-der", lambda i: by_public_key_as_secret(i, Encoding.DER), "oidc-algorithm"),
    Attack("hs256-with-modulus", lambda i: by_hmac(i, public_jwk(i.key)["n"].encode()), "oidc-algorithm"),
    Attack("rs512-not-in-list", lambda i: jwt.encode(claims(i), i.key, "RS512", {"kid": i.kid}), "oidc-algorithm"),
    Attack("key-used-with-other-algorithm", lambda i: jwt.encode(claims(i), i.key, "PS256", {"kid": i.kid}), "oidc-algorithm"),
    Attack("signed-by-a-stranger", lambda i: jwt.encode(claims(i), STRANGER, "RS256", {"kid": i.kid}), "oidc-signature"),
    Attack("signature-cut", lambda i: signed(i)[:-6], "oidc-signature"),
    Attack("signature-missing", lambda i: signed(i).rpartition(".")[0] + ".", "oidc-signature"),
    Attack("claims-changed", broken, "oidc-signature"),
    Attack("unknown-kid", lambda i: jwt.encode(claims(i), STRANGER, "RS256", {"kid": "mine"}), "oidc-key"),
    Attack("kid-missing", lambda i: jwt.encode(claims(i), i.key, "RS256"), "oidc-key"),
    Attack("kid-is-a-path", lambda i: signed(i, {"kid": "../../../../dev/null"}), "oidc-key"),
    Attack("jku-to-a-stranger", lambda i: signed(i, {"jku": "https://evil.example/keys"}), "oidc-header"),
    Attack("x5u-to-a-stranger", lambda i: signed(i, {"x5u": "https://evil.example/cert"}), "oidc-header"),
    Attack("embedded-jwk", with_embedded_key, "oidc-header"),
    Attack("embedded-x5c", lambda i: signed(i, {"x5c": ["AAAA"]}), "oidc-header"),
    Attack("crit-extension", lambda i: by_hand(i, {"crit": ["exp"]}), "oidc-malformed"),
    Attack("crit-that-is-no-list", lambda i: by_hand(i, {"crit": {}}), "oidc-malformed"),
    Attack("encoding-switched", lambda i: by_hand(i, {"b64": True}), "oidc-header"),
    Attack("compressed", lambda i: by_hand(i, {"zip": "DEF"}), "oidc-header"),
    Attack("logout-token-by-type", lambda i: signed(i, {"typ": "logout+jwt"}), "oidc-kind"),
    Attack("dpop-proof", lambda i: signed(i, {"typ": "dpop+jwt"}), "oidc-kind"),
    Attack("logout-token-by-claim", lambda i: signed(i, events={}), "oidc-kind"),
    Attack("key-bound-token-as-bearer", lambda i: signed(i, cnf={"jkt": "x"}), "oidc-kind"),
    Attack("refresh-token-as-bearer", lambda i: i.tokens("anna")["refresh_token"], "oidc-kind"),
    Attack("refresh-token-of-keycloak", lambda i: signed(i, token_use=None, typ="Refresh"), "oidc-kind"),
    Attack("foreign-issuer", lambda i: signed(i, iss="https://accounts.example"), "oidc-issuer"),
    Attack("issuer-with-a-tail", lambda i: signed(i, iss=i.url + "/"), "oidc-issuer"),
    Attack("issuer-missing", lambda i: signed(i, iss=None), "oidc-issuer"),
    Attack("issuer-a-list", lambda i: by_hand(i, {}, iss=[i.url]), "oidc-issuer"),
    Attack("wrong-audience", lambda i: signed(i, aud="payroll"), "oidc-audience"),
    Attack("audience-missing", lambda i: signed(i, aud=None), "oidc-audience"),
    Attack("audience-a-prefix", lambda i: signed(i, aud=["edgeops-other", {"edgeops": 1}]), "oidc-audience"),
    Attack("id-token-as-access-token", lambda i: i.tokens("anna")["id_token"], "oidc-audience"),
    Attack("token-of-another-client", lambda i: i.tokens("anna", "payroll")["access_token"], "oidc-client"),
    Attack("azp-of-another-client", lambda i: signed(i, client_id=None, azp="payroll"), "oidc-client"),
    Attack("azp-contradicts-client", lambda i: signed(i, azp="payroll"), "oidc-client"),
    Attack("many-audiences-no-client", lambda i: signed(i, client_id=None, aud=[AUDIENCE, "payroll"]), "oidc-client"),
    Attack("expired", lambda i: signed(i, iat=int(time.time()) - HOUR, nbf=None, exp=int(time.time()) - 60), "oidc-expired"),
    Attack("expiry-missing", lambda i: signed(i, exp=None), "oidc-claims"),
    Attack("expiry-text", lambda i: signed(i, exp="never"), "oidc-claims"),
    Attack("expiry-endless", lambda i: signed(i, exp=1e300), "oidc-claims"),
    Attack("not-yet-valid", lambda i: signed(i, nbf=int(time.time()) + 120), "oidc-early"),
    Attack("issued-in-the-future", lambda i: signed(i, iat=int(time.time()) + 120), "oidc-early"),
    Attack("issued-never", lambda i: signed(i, iat=None), "oidc-claims"),
    Attack("nobody", lambda i: signed(i, sub=None), "oidc-claims"),
    Attack("role-claim-missing", lambda i: i.tokens("nemo")["access_token"], "oidc-role", 403),
    Attack("role-of-others", lambda i: signed(i, groups=["payroll-admins"]), "oidc-role", 403),
    Attack("role-a-substring", lambda i: signed(i, groups="not fleet-admins at all"), "oidc-role", 403),
    Attack("role-an-object", lambda i: signed(i, groups={"fleet-admins": True}), "oidc-role", 403),
    Attack("role-named-outright", lambda i: signed(i, groups=None, role="admin", roles=["admin"]), "oidc-role", 403),
    Attack("too-long", lambda i: signed(i, padding="x" * 13_000), "oidc-malformed"),
    Attack("header-not-json", lambda i: "eyJhbGciOiJSUzI1NiIsIm." + signed(i).partition(".")[2], "oidc-malformed"),
    Attack("header-a-list", lambda _i: "eyJd." + "e30.AAAA", "oidc-malformed"),
)  # fmt: skip


@pytest.mark.real
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack_is_refused(manager: TestClient, issuer: Nanoidp, attack: Attack, score: Score) -> None:
    """Each is refused for its own reason, and the token is not said again."""
    token = attack.make(issuer)
    answer = ask(manager, token)
    assert said(answer) == (attack.status, attack.reason), answer.text
    assert token not in answer.text
    score.refused(f"login-{attack.name}", attack.reason)


def test_attacks_have_names_of_their_own() -> None:
    """No row is there twice."""
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 50


@pytest.mark.real
def test_the_honest_come_in_with_their_highest_role(manager: TestClient, issuer: Nanoidp) -> None:
    """Tokens as the issuer makes them; the name in the log is theirs, and is no API token's; roles hold as for API tokens."""
    for user, role in (("anna", "admin"), ("olga", "operator")):
        token = issuer.tokens(user)["access_token"]
        assert ask(manager, token).json() == {"name": f"oidc:{user}", "role": role}
    assert said(ask(manager, token, "/tokens")) == (403, "role")
    headers = {"authorization": f"Bearer {token}"}
    assert manager.post(f"{API}/devices", json={"id": "pi-1"}, headers=headers).status_code == 201
    assert "oidc:olga" in {entry["who"] for entry in ask(manager, token, "/audit").json()["audit"]}


@pytest.mark.real
def test_a_clock_may_be_half_a_minute_off(manager: TestClient, issuer: Nanoidp) -> None:
    """Just expired and issued just ahead are let in: clocks differ."""
    now = int(time.time())
    assert ask(manager, signed(issuer, exp=now - 20)).status_code == 200
    assert ask(manager, signed(issuer, iat=now + 20, nbf=now + 20)).status_code == 200


@pytest.mark.real
def test_a_key_rotated_at_the_issuer_is_found(manager: TestClient, issuer: Nanoidp) -> None:
    """A token signed with a key newer than what we know comes in at once; those of the old key do as long as it is published."""
    before = issuer.tokens("anna")["access_token"]
    assert ask(manager, before).status_code == 200
    issuer.rotate()
    after = issuer.tokens("anna")["access_token"]
    assert jwt.get_unverified_header(before)["kid"] != jwt.get_unverified_header(after)["kid"]
    assert ask(manager, after).status_code == ask(manager, before).status_code == 200


@pytest.mark.real
def test_id_tokens_serve_where_the_audience_is_the_client(hub: Hub, issuer: Nanoidp) -> None:
    """Issuers that only have ID tokens: the audience is the client's id then, and access tokens for others are not taken."""
    with accepting(hub, issuer.url, audience=CLIENT, roles=("token_use id viewer",)) as client:
        found = issuer.tokens("anna")
        assert ask(client, found["id_token"]).json() == {"name": "oidc:anna", "role": "viewer"}
        assert said(ask(client, found["access_token"])) == (401, "oidc-audience")


@pytest.mark.real
def test_wrong_logins_are_counted_like_wrong_tokens(hub: Hub, issuer: Nanoidp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The 101st in a minute waits, and good ones do not."""
    monkeypatch.setattr(door.Door.__init__, "__defaults__", ((), lambda: 0.0))
    with accepting(hub, issuer.url) as manager:
        _check_counting(manager, issuer)


def _check_counting(manager: TestClient, issuer: Nanoidp) -> None:
    forged = jwt.encode(claims(issuer), STRANGER, "RS256", {"kid": issuer.kid})
    reasons = [said(ask(manager, forged)) for _ in range(101)]
    assert set(reasons[:100]) == {(401, "oidc-signature")} and reasons[100] == (429, "too-many")
    assert ask(manager, issuer.tokens("anna")["access_token"]).status_code == 200


@pytest.mark.real
def test_where_it_is_off_no_such_token_is_looked_at(client: TestClient, issuer: Nanoidp) -> None:
    """Without the setting a perfect token of any issuer is an unknown one, and nobody is told how to log in."""
    assert said(ask(client, issuer.tokens("anna")["access_token"])) == (401, "token-unknown")
    assert said(client.get(f"{API}/login", headers={"authorization": ""})) == (404, "no-login")


@pytest.mark.real
def test_strangers_learn_how_to_log_in(manager: TestClient, issuer: Nanoidp) -> None:
    """Issuer, client and audience are no secret; `edgeops login` needs them first."""
    assert manager.get(f"{API}/login").json() == {"issuer": issuer.url, "client": CLIENT, "audience": AUDIENCE}


@pytest.fixture
def made_up() -> Iterator[Straw]:
    """A straw issuer."""
    with straw() as running:
        yield running


def token_of(made_up: Straw, key: Any, algorithm: str, kid: str = "k", **other: Any) -> str:
    """A token of the straw issuer."""
    now = int(time.time())
    body = {"iss": made_up.url, "sub": "anna", "aud": AUDIENCE, "iat": now, "exp": now + 60, "groups": "fleet-ops", **other}
    return jwt.encode(body, key, algorithm, {"kid": kid})


KEYS: dict[str, Any] = {
    "RS256": STRANGER, "PS256": STRANGER, "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}  # fmt: skip


@pytest.mark.parametrize("algorithm", KEYS)
def test_four_algorithms_are_accepted(hub: Hub, made_up: Straw, algorithm: str) -> None:
    """Each with its own kind of key, and with no other's: the key decides, not the token."""
    for name, key in KEYS.items():
        made_up.publish(key, name)
    with accepting(hub, made_up.url) as client:
        assert ask(client, token_of(made_up, KEYS[algorithm], algorithm, algorithm)).json()["role"] == "operator"
        for other in KEYS:
            if other != algorithm and {other, algorithm} != {"RS256", "PS256"}:
                assert said(ask(client, token_of(made_up, KEYS[algorithm], algorithm, other))) == (401, "oidc-algorithm")


@pytest.mark.parametrize(
    ("key", "algorithm", "more"),
    [
        (rsa.generate_private_key(public_exponent=65537, key_size=1024), "RS256", {}),
        (ec.generate_private_key(ec.SECP384R1()), "ES384", {}),
        (STRANGER, "RS256", {"use": "enc"}), (STRANGER, "RS256", {"alg": "RS512"}), (STRANGER, "RS256", {"n": "AA"}),
        (STRANGER, "RS256", {"kty": "oct", "k": "AAAA"}), (STRANGER, "RS256", {"kid": 7}),
    ],
)  # fmt: skip
def test_keys_unfit_for_signing_are_not_used(hub: Hub, made_up: Straw, key: Any, algorithm: str, more: dict[str, Any]) -> None:
    """Too short, on another curve, for encryption, for another algorithm, broken, symmetric, without a name."""
    made_up.publish(key, "k", **more)
    with accepting(hub, made_up.url) as client:
        status, reason = said(ask(client, token_of(made_up, key, algorithm)))
        assert status == 401 and reason in ("oidc-algorithm", "oidc-signature", "oidc-key")


def test_invented_key_names_do_not_become_a_flood_at_the_issuer(hub: Hub, made_up: Straw) -> None:
    """Fifty tokens that each name another key cost the issuer a handful of requests; good ones go on."""
    made_up.publish(STRANGER, "k")
    with accepting(hub, made_up.url) as client:
        for number in range(50):
            assert said(ask(client, token_of(made_up, STRANGER, "RS256", f"invented-{number}"))) == (401, "oidc-key")
        assert made_up.asked <= 2 * 3
        assert ask(client, token_of(made_up, STRANGER, "RS256")).status_code == 200


def test_nested_claims_and_odd_names(hub: Hub, made_up: Straw) -> None:
    """Roles of Keycloak lie deeper; a claim whose name has dots is found too; long or odd subjects are hashed for the log."""
    made_up.publish(STRANGER, "k")
    roles = ("realm_access.roles ops operator", "https://edgeops.example/role boss admin")
    with accepting(hub, made_up.url, roles=roles) as client:
        keycloak = token_of(made_up, STRANGER, "RS256", groups=[], realm_access={"roles": ["ops"]})
        assert ask(client, keycloak).json()["role"] == "operator"
        auth0 = token_of(made_up, STRANGER, "RS256", **{"https://edgeops.example/role": "boss", "sub": "auth0|5f7c8ec7"})
        assert ask(client, auth0).json() == {"name": "oidc:auth0|5f7c8ec7", "role": "admin"}
        for odd in ("x" * 60, "a b", "a\nb", "\x1b[31m", "ü"):
            name = ask(client, token_of(made_up, STRANGER, "RS256", sub=odd, realm_access={"roles": ["ops"]})).json()["name"]
            assert name.startswith("oidc:sha256:") and len(name) <= 64


def test_an_issuer_that_is_away_keeps_nobody_out_for_a_while(hub: Hub, made_up: Straw) -> None:
    """Keys are read again after ten minutes; while that fails those known serve for a day, and no longer."""
    made_up.publish(STRANGER, "k")
    now = [0.0]
    with accepting(hub, made_up.url) as client:
        issuer = client.app.state.bearers.issuer  # type: ignore[attr-defined]
        issuer._clock = lambda: now[0]
        assert ask(client, token_of(made_up, STRANGER, "RS256")).status_code == 200
        asked, made_up.answer = made_up.asked, lambda handler: handler.send_error(500)
        now[0] = 700.0
        assert ask(client, token_of(made_up, STRANGER, "RS256")).status_code == 200 and made_up.asked > asked
        now[0] = 90_000.0
        assert said(ask(client, token_of(made_up, STRANGER, "RS256"))) == (503, "issuer-away")
        now[0], made_up.answer, made_up.keys = 180_000.0, None, []
        assert said(ask(client, token_of(made_up, STRANGER, "RS256"))) == (401, "oidc-key")
