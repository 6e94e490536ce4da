"""API tokens: their form, how they are kept, when they end, and what becomes of those who guess."""

import hmac
import logging
import re
from typing import Any

import pytest
from fastapi.testclient import TestClient
from manager_house import Clock

from edgeops.api import door
from edgeops.api.app import make_app
from edgeops.manager import tokens
from edgeops.manager.hub import Hub
from edgeops.wire.errors import Misuse
from edgeops.wire.keys import sha256

API = "/api/v1"
WRONG = f"edgeops_{'0' * 12}_{'0' * 64}"


def bearer(text: str) -> dict[str, str]:
    """The header for a token."""
    return {"authorization": f"Bearer {text}"}


def new(client: TestClient, name: str = "anna", role: str = "viewer", **more: Any) -> str:
    """Make a token over the API."""
    return str(client.post(f"{API}/tokens", json={"name": name, "role": role, **more}).raise_for_status().json()["token"])


def test_a_token_has_a_form_that_scanners_find(client: TestClient) -> None:
    """A prefix, a public part and 256 bits, in letters one double-click selects; no two alike."""
    made = [new(client, f"n{number}") for number in range(20)]
    assert all(re.fullmatch(r"edgeops_[0-9a-f]{12}_[0-9a-f]{64}", text) for text in made)
    assert len({text.split("_")[1] for text in made}) == len({text.split("_")[2] for text in made}) == 20


def test_nothing_of_the_secret_is_kept_said_again_or_logged(
    client: TestClient, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the database's bytes, nor any answer after the first, nor the log at its loudest hold the secret or its hash."""
    with caplog.at_level(logging.DEBUG):
        text = new(client)
        secret, digest = text.split("_")[2], sha256(text.encode())
        assert client.get(f"{API}/devices", headers=bearer(text)).status_code == 200
        said = [client.get(f"{API}/tokens").text, client.get(f"{API}/audit").text]
        said.append(client.post(f"{API}/tokens", json={"name": "anna", "role": "viewer"}).text)
        said.append(client.get(f"{API}/devices", headers=bearer(text[:-1])).text)
        said.append(client.delete(f"{API}/tokens/anna").text)
    stored = b"".join(path.read_bytes() for path in hub.layout.root.rglob("*") if path.is_file())
    assert secret.encode() not in stored
    for place in (*said, caplog.text):
        assert secret not in place and digest not in place


def test_the_comparison_takes_constant_time_whoever_asks(
    client: TestClient, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A known public part with a wrong secret, an unknown one and rubbish are all compared by hash, and answered alike."""
    text = new(client)
    compared: list[tuple[str, str]] = []
    real = hmac.compare_digest

    def spy(one: str, other: str) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr("edgeops.manager.tokens.hmac.compare_digest", spy)
    wrong = (text[:-64] + "0" * 64, WRONG, "rubbish", text + "0", text.upper(), text.replace("edgeops", "x"))
    answers = [client.get(f"{API}/devices", headers=bearer(one)) for one in wrong]
    assert {(answer.status_code, answer.json()["reason"]) for answer in answers} == {(401, "token-unknown")}
    assert len({answer.text for answer in answers}) == 1
    assert len(compared) == len(wrong) and all(len(one) == len(other) == 64 for one, other in compared)


def test_a_token_ends_at_once_when_it_is_withdrawn(client: TestClient) -> None:
    """The very next request with it is refused; the name is free again, for another secret."""
    text = new(client)
    assert client.get(f"{API}/devices", headers=bearer(text)).status_code == 200
    assert client.delete(f"{API}/tokens/anna").status_code == 200
    assert client.get(f"{API}/devices", headers=bearer(text)).json()["reason"] == "token-unknown"
    assert new(client) != text
    assert client.get(f"{API}/devices", headers=bearer(text)).status_code == 401


def test_the_last_admin_stays_and_others_may_go(client: TestClient, clock: Clock) -> None:
    """An admin whose companions have expired cannot be withdrawn; a viewer always can."""
    new(client, "anna")
    new(client, "brief", "admin", ttl_s=60)
    client.delete(f"{API}/tokens/admin").raise_for_status()
    clock.now += 60
    assert client.delete(f"{API}/tokens/boss").json()["reason"] == "last-admin"
    assert client.delete(f"{API}/tokens/anna").status_code == 200
    new(client, "second", "admin")
    assert client.delete(f"{API}/tokens/boss").status_code == 200


def test_last_use_and_expiry_are_told(client: TestClient, clock: Clock) -> None:
    """When a token was used last, to the minute, and when it ends."""
    text = new(client, ttl_s=1000)
    start = clock.now

    def shown() -> dict[str, Any]:
        listed = client.get(f"{API}/tokens").json()["tokens"]
        return next(one for one in listed if one["name"] == "anna")

    assert (shown()["expires"], shown()["last_used"]) == (start + 1000, None)
    for step, noted in ((10, start + 10), (30, start + 10), (60, start + 100)):
        clock.now += step
        client.get(f"{API}/devices", headers=bearer(text)).raise_for_status()
        assert shown()["last_used"] == noted
    assert set(shown()) == {"name", "role", "created", "expires", "last_used"}


def test_who_guesses_is_asked_to_wait_and_keeps_nobody_out(hub: Hub, admin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The 101st wrong token of a minute is a 429 that says when to come back; good tokens and other addresses never notice."""
    now = [0.0]
    monkeypatch.setattr(door.Door.__init__, "__defaults__", ((), lambda: now[0]))
    app = make_app(hub)
    here, there = (TestClient(app, "https://test", client=(address, 5)) for address in ("192.0.2.1", "192.0.2.2"))
    answers = [here.get(f"{API}/devices", headers=bearer(WRONG)).status_code for _ in range(door.WRONG)]
    assert set(answers) == {401}
    for text in (WRONG, "rubbish"):
        refused = here.get(f"{API}/devices", headers=bearer(text))
        assert (refused.status_code, refused.json()["reason"]) == (429, "too-many")
        assert 1 <= int(refused.headers["retry-after"]) <= 2
    assert here.get(f"{API}/devices", headers=bearer(admin)).status_code == 200
    assert here.get(f"{API}/devices").status_code == 401
    assert here.get(f"{API}/health").status_code == 200
    assert there.get(f"{API}/devices", headers=bearer(WRONG)).status_code == 401
    now[0] += int(refused.headers["retry-after"])
    assert here.get(f"{API}/devices", headers=bearer(WRONG)).status_code == 401


def test_a_forwarded_address_is_not_believed(hub: Hub) -> None:
    """Who counts is who connected, not who the request says it comes from."""
    client = TestClient(make_app(hub), "https://test", client=("192.0.2.1", 5))
    codes = {
        client.get(f"{API}/devices", headers={**bearer(WRONG), "x-forwarded-for": f"10.0.0.{number}"}).status_code
        for number in range(door.WRONG + 5)
    }
    assert codes == {401, 429}


def test_only_two_kinds_of_names_exist(hub: Hub) -> None:
    """No token may be called like somebody who logs in elsewhere: `:` stands in no token's name."""
    with hub.store.write() as tx, pytest.raises(Misuse, match="must match"):
        tokens.issue(tx, "oidc:anna", "viewer", hub.now())
