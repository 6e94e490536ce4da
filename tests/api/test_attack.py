"""Every operation of the OpenAPI document, asked wrongly in every way: never a 500, always a problem document; roles hold."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from manager_house import make_release, release_signer

from edgeops.api import health
from edgeops.manager.hub import Hub
from edgeops.wire.keys import sha256

ODD_IDS = (
    "..", "..%2f..%2fetc%2fpasswd", "%2e%2e%2fx", "a" * 65, "a" * 5000, "%00", "a%00b", "%ff%fe", "%F0%9F%92%A9", "ü",
    "e%CC%81", "'--", "%22%3E%3Cscript%3E", "-1", "0", "1e3", "NaN", "9" * 30,
    "1.5", "%20", "%0d%0aX:1", "null", "manager", "+", "%23", "*",
)  # fmt: skip
ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**53, 2**63, 10**30, 1.5, float("nan"), float("inf"), -float("inf"), "", "x" * 70_000, "\x00", "\ud800",
    "é", "e\u0301", "\u2028", "\U0001f4a9", [], [[]], {}, {"": ""}, {"\ud800": "\ud800"}, {"a": {"b": {"c": [1, {"d": None}]}}},
    "2", "all", {"a": "x" * 200}, {"x" * 300: 1}, {"version": "latest"}, ["all"] * 50, {f"k{n}": "v" for n in range(100)},
    {"dwell_s": float("nan")}, {"window_s": 10**20}, {"success_fraction": float("inf")}, {"dwell_s": 10**400},
)  # fmt: skip
RAW = (
    b"", b"{", b"null", b"[]", b'"x"', b"7", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 5000 + b"1" + b"}" * 5000, b"{}" * 9,
    b"1" * 5000, b'{"id":"a","id":"b"}', b"NaN", b'{"version":1e999}', b"\x00" * 100, b'{"a":"\\ud800"}',
)  # fmt: skip
TYPES = ("application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "application/json;a")


def operations(client: TestClient) -> list[tuple[str, str, dict[str, Any]]]:
    """(method, path, operation) of the whole document."""
    found = client.get("/api/v1/openapi.json").json()["paths"]
    return [(method.upper(), path, operation) for path, verbs in found.items() for method, operation in verbs.items()]


def filled(path: str, values: dict[str, str]) -> str:
    """The path with its parameters filled in."""
    for name, value in values.items():
        path = path.replace("{" + name + "}", value)
    return path


GOOD = {"device": "pi-1", "rollout": "r-1", "model": "digits", "version": "1", "digest": sha256(b"")}


def check(answer: Any, what: object) -> None:
    """An answer is a success or a whole problem document."""
    # No broker runs beside the API here, and the one operation that needs it says so.
    assert answer.status_code < 500 or "no-broker" in answer.text, (what, answer.status_code, answer.text[:300])
    assert not 300 <= answer.status_code < 400, (what, answer.headers.get("location"))
    if answer.status_code >= 400 and answer.request.method != "HEAD":
        assert answer.headers["content-type"] == "application/problem+json", (what, answer.text[:300])
        body = answer.json()
        assert body["status"] == answer.status_code and len(body["detail"]) < 5000, what
        assert {"type", "title", "status", "detail", "reason", "kind"} <= set(body), what


@pytest.fixture
def attacked(client: TestClient, hub: Hub) -> TestClient:
    """A manager with a device and a release, so that requests get past `unknown`."""
    client.post("/api/v1/devices", json={"id": "pi-1"})
    made = make_release(release_signer(hub.layout.root))
    for digest, data in made.objects.items():
        client.put(f"/api/v1/objects/{digest}", content=data)
    assert client.post("/api/v1/releases", json={"envelope": made.envelope.decode()}).status_code == 201
    return client


def test_odd_paths(attacked: TestClient) -> None:
    """Each path parameter of each operation takes each odd id."""
    for method, path, operation in operations(attacked):
        for name in [parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "path"]:
            for odd in ODD_IDS:
                where = filled(path, GOOD | {name: odd})
                check(attacked.request(method, where, json={} if method not in ("GET", "HEAD") else None), (method, where))
        check(attacked.request(method, filled(path, GOOD) + "/"), (method, path, "slash"))
        check(attacked.request("BREW", filled(path, GOOD)), (path, "method"))


def test_odd_queries(attacked: TestClient) -> None:
    """Each query parameter takes each odd id, twice over, and unknown ones are no harm."""
    for method, path, operation in operations(attacked):
        names = [parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "query"]
        for name in names or ["x"]:
            for odd in ODD_IDS if names else ODD_IDS[:2]:
                query = f"{name}={odd}&{name}={odd}&nonsense[]={odd}"
                check(attacked.request(method, f"{filled(path, GOOD)}?{query}"), (path, name, odd))


def bodies(client: TestClient, operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Bodies of an operation with one field odd at a time, and with none."""
    schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    name = (schema.get("$ref") or schema.get("allOf", [{}])[0].get("$ref") or "/").rsplit("/", 1)[1]
    known = client.get("/api/v1/openapi.json").json()["components"]["schemas"]
    fields = known.get(name, {}).get("properties", {})
    good = {
        "id": "pi-9", "labels": {}, "model": "digits", "version": 1, "to": "all", "token_device": "pi-1", "secret": "x", "csr": "x",
        "identity": "0" * 64, "envelope": "{}", "name": "me", "role": "viewer",
    }  # fmt: skip
    for field in [*fields, "unknown"]:
        for odd in ODD_VALUES:
            yield {key: value for key, value in good.items() if key in fields} | {field: odd}


def test_odd_fields(attacked: TestClient) -> None:
    """Each field of each body takes each odd value; JSON with NaN, infinities, lone surrogates and giant numbers among them."""
    for method, path, operation in operations(attacked):
        for body in bodies(attacked, operation) if "requestBody" in operation else ():
            answer = attacked.request(
                method, filled(path, GOOD), content=json.dumps(body).encode(), headers={"content-type": "application/json"}
            )
            check(answer, (method, path, {key: str(value)[:60] for key, value in body.items()}))


def test_odd_bodies(attacked: TestClient) -> None:
    """Each operation takes each odd body under each content type."""
    for method, path, _ in operations(attacked):
        for raw in RAW:
            for kind in TYPES if raw in RAW[:3] else TYPES[:1]:
                answer = attacked.request(method, filled(path, GOOD), content=raw, headers={"content-type": kind})
                check(answer, (method, path, raw[:40], kind))


def test_odd_headers(attacked: TestClient) -> None:
    """Tokens, ranges and lengths nobody would send."""
    for value in ("Bearer", "Bearer ", "Basic eDp5", "Bearer " + "x" * 9000, "bearer \xff", "Bearer a b", "\xb2"):
        answer = attacked.get("/api/v1/devices", headers={"authorization": value.encode("latin-1")})
        check(answer, value)
        assert answer.status_code == 401
    attacked.put(f"/api/v1/objects/{sha256(b'abc')}", content=b"abc")
    for value in ("bytes=-0", "bytes=5-", "bytes=2-1", "bytes=99999999999999999999-", "bytes=-", "bytes=0-0,1-1", "x=1", "\xb2"):
        check(attacked.get(f"/api/v1/objects/{sha256(b'abc')}", headers={"range": value.encode("latin-1")}), value)
    for value in ("\xb2", "-1", "1e9", "0x10", "", "9" * 40):
        headers = {"content-length": value.encode("latin-1")}
        check(attacked.put(f"/api/v1/objects/{sha256(b'abc')}", content=b"abc", headers=headers), value)


@pytest.mark.parametrize("announced", [True, False])
def test_a_giant_body_is_a_413_before_it_is_read(attacked: TestClient, announced: bool) -> None:
    """No operation but an upload reads more than a few megabytes, whoever asks; the rest is left on the wire."""
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(8):
            taken += 1 << 20
            yield b" " * (1 << 20)

    for method, path, operation in operations(attacked):
        if "requestBody" not in operation or "/objects/" in path:
            continue
        taken = 0
        headers = {"content-type": "application/json"} | ({"content-length": str(8 << 20)} if announced else {})
        answer = attacked.request(method, filled(path, GOOD), content=endless(), headers=headers)
        assert answer.json()["reason"] == "too-large" and answer.status_code == 413, (method, path, answer.text[:200])


def test_health_and_ca_tell_strangers_nothing_secret(client: TestClient) -> None:
    """What is open to all names no device, key or token."""
    for path in ("/health", "/ca"):
        text = client.get("/api/v1" + path, headers={"authorization": ""}).text
        assert "edgeops_" not in text and "PRIVATE" not in text
    assert health.router.routes
