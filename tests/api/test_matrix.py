"""Who may do what: every operation of the application times every kind of caller, by real requests.

`NEEDS` is the rule, written by hand. It is held against the application in both directions: an operation without a rule fails,
and so does a rule that the operation does not declare or does not keep.
"""

import pytest
from fastapi.testclient import TestClient
from manager_house import Clock
from starlette.routing import Route

from edgeops.api import reference
from edgeops.api.app import NOUNS, make_app
from edgeops.manager import access, tokens
from edgeops.manager.hub import Hub
from edgeops.wire.keys import sha256

API = "/api/v1"
NEEDS = {
    "open": {
        "GET /health", "GET /ca", "POST /enroll", "POST /renew", "GET /login", "POST /credential", "POST /credential/challenge",
        "GET /documents/root", "GET /documents/site", "GET /documents/floor",
    },
    "viewer": {
        "GET /devices", "GET /devices/{device}", "GET /releases", "GET /releases/{model}/{version}", "GET /models", "GET /rollouts",
        "GET /rollouts/{rollout}", "GET /status", "GET /telemetry", "GET /drift", "GET /audit", "GET /audit/checkpoints",
        "GET /objects/{digest}", "HEAD /objects/{digest}",
        "GET /whoami", "GET /health/details", "GET /documents", "GET /pending", "GET /join-line",
    },
    "operator": {
        "POST /devices", "PATCH /devices/{device}", "POST /devices/{device}/token", "POST /devices/{device}/revoke",
        "POST /rollouts", "POST /releases", "PUT /objects/{digest}", "POST /rollouts/{rollout}/pause",
        "POST /rollouts/{rollout}/resume", "POST /rollouts/{rollout}/advance", "POST /rollouts/{rollout}/abort",
        "POST /rollouts/{rollout}/approve", "POST /rollouts/{rollout}/reject",
        "POST /devices/{device}/decommission", "POST /devices/{device}/release", "POST /pending/approve", "POST /pending/reject",
    },
    "admin": {"GET /tokens", "POST /tokens", "DELETE /tokens/{name}", "POST /documents/{kind}"},
}  # fmt: skip
# Who calls, and which roles the caller has; those without any are told so with 401 before anything else.
HAS = {
    "nobody": (), "unknown token": (), "expired admin": (), "revoked admin": (), "token of another kind": (),
    "viewer": ("viewer",), "operator": ("viewer", "operator"), "admin": ("viewer", "operator", "admin"),
}  # fmt: skip
WORD = {
    "device": "pi-1", "rollout": "r-1", "model": "digits", "version": "1", "digest": sha256(b""), "name": "somebody",
    "kind": "site",
}  # fmt: skip
# Whoever has a token, but not the role, may learn that a body is not even JSON; strangers may not.
BODIES, BROKEN = (b"", b"{}", b'{"id":"x"}'), (b"{", b"[" * 9000)


def rules() -> dict[str, str]:
    """The role of each operation."""
    return {operation: role for role, operations in NEEDS.items() for operation in operations}


def filled(path: str) -> str:
    """A path with words for its parameters; a parameter without a word fails."""
    for name, word in WORD.items():
        path = path.replace("{" + name + "}", word)
    assert "{" not in path, f"{path}: say in WORD what stands there"
    return API + path


def headers_of(hub: Hub, clock: Clock, caller: str) -> dict[str, str]:
    """The Authorization header of a kind of caller."""
    if caller == "nobody":
        return {}
    if caller == "unknown token":
        return {"authorization": f"Bearer edgeops_{'0' * 12}_{'0' * 64}"}
    if caller == "token of another kind":
        return {"authorization": f"Basic {'A' * 40}"}
    role = caller.split(" ")[-1]
    with hub.store.write() as tx:
        tokens.issue(tx, "keeper", "admin", hub.now())
        text = tokens.issue(tx, "me", role, hub.now(), 100)
    if caller.startswith("expired"):
        clock.now += 100
    if caller.startswith("revoked"):
        access.withdraw(hub, "keeper", "me")
    return {"authorization": f"Bearer {text}"}


def test_every_operation_has_a_rule_and_declares_it(client: TestClient) -> None:
    """A new operation must stand in the table, and its OpenAPI security must say the same."""
    declared = {}
    for method, path, operation in reference.operations(client.get(f"{API}/openapi.json").json()):
        scopes = [scope for needed in operation.get("security", []) for one in needed.values() for scope in one]
        assert len(scopes) <= 1, (method, path)
        declared[f"{method} {path}"] = scopes[0] if scopes else "open"
    assert declared == rules()


def test_no_route_escapes_the_document(hub: Hub) -> None:
    """What the application answers is what its document says: no hidden route stands beside the table."""
    assert all(vars(route)["include_in_schema"] for noun in NOUNS for route in noun.router.routes)
    assert [route.path for route in make_app(hub).routes if isinstance(route, Route)] == [f"{API}/openapi.json"]


@pytest.mark.parametrize("caller", HAS)
def test_every_operation_answers_every_caller(hub: Hub, clock: Clock, caller: str) -> None:
    """Without a good token 401, with too low a role 403, else neither: whatever the body is."""
    app, headers = make_app(hub), {"content-type": "application/json", **headers_of(hub, clock, caller)}
    for number, (operation, needed) in enumerate(rules().items()):
        # Each from an address of its own: one that is wrong so often would be asked to wait.
        client = TestClient(app, "https://test", raise_server_exceptions=False, client=(f"192.0.2.{number}", 1))
        method, path = operation.split(" ")
        expected = "in" if needed == "open" or needed in HAS[caller] else "403 role" if HAS[caller] else "401"
        for body in (*BODIES, *(() if HAS[caller] else BROKEN)):
            answer = client.request(method, filled(path), content=body or None, headers=headers)
            got = "401" if answer.status_code == 401 else "in"
            if answer.status_code == 403:
                # HEAD has no body to say why; /enroll refuses with 403 too, but for its own reason.
                got = "403 role" if method == "HEAD" or answer.json()["reason"] == "role" else "in"
            assert got == expected, (operation, caller, body[:20], answer.status_code)


def test_what_no_route_has_is_for_nobody(hub: Hub) -> None:
    """Unknown paths, other spellings of open ones and other methods need a token too: strangers learn no map of us."""
    client = TestClient(make_app(hub), "https://test", raise_server_exceptions=False)
    for path in ("/", "", "/", "/health/", "//health", "/HEALTH", "/./devices", "/x", "/openapi.json", "/docs", "/redoc"):
        assert client.get(API + path).status_code == 401, path
        assert client.get(path or "/").status_code == 401, path
    assert client.request("BREW", f"{API}/devices").status_code == 401
