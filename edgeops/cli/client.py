"""The manager over HTTPS. Trusts the context's CA and nothing else; problem documents (RFC 9457) come back as our errors."""

import ssl
from pathlib import Path
from typing import Any, TypeVar

import httpx

from edgeops.wire.errors import EdgeopsError, Misuse, Rejected, Unfit, Unreachable
from edgeops.wire.fields import ID

from .context import Context

BASE = "/api/v1"
TIMEOUT = httpx.Timeout(30.0, connect=5.0)
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
KINDS: dict[str, type[EdgeopsError]] = {"rejected": Rejected, "unreachable": Unreachable, "unfit": Unfit, "misuse": Misuse}
T = TypeVar("T")


class Client:
    """Requests to one manager. Every method raises EdgeopsError and nothing else."""

    def __init__(self, context: Context, transport: httpx.BaseTransport | None = None) -> None:
        self.context = context
        self._http = httpx.Client(
            base_url=context.url.rstrip("/") + BASE, headers=_bearer(context), timeout=TIMEOUT,
            verify=_trust(context), transport=transport, trust_env=httpx.URL(context.url).host not in LOOPBACK,
        )  # fmt: skip

    def get(self, path: str, **params: str | int | None) -> Any:
        """The JSON answer of GET; None parameters are left out."""
        return self._json("GET", path, params={name: value for name, value in params.items() if value is not None})

    def post(self, path: str, body: Any = None) -> Any:
        """The JSON answer of POST with a JSON body."""
        return self._json("POST", path, json={} if body is None else body)

    def patch(self, path: str, body: Any) -> Any:
        """The JSON answer of PATCH with a JSON body."""
        return self._json("PATCH", path, json=body)

    def delete(self, path: str) -> Any:
        """The JSON answer of DELETE."""
        return self._json("DELETE", path)

    def offer_release(self, envelope: Any) -> tuple[Any, list[str]]:
        """Offer a signed release: the manager's answer, or None and the digests of the objects it wants first."""
        answer = self._send("POST", "/releases", allow=(409,), json={"envelope": envelope})
        body = answer.json()
        if answer.status_code != 409:
            return body, []
        if body.get("reason") != "missing-objects" or not body.get("missing"):
            raise problem(answer, self.context.url)
        return None, [str(digest) for digest in body["missing"]]

    def put_object(self, digest: str, data: bytes) -> None:
        """Upload an object by its SHA-256."""
        headers = {"content-type": "application/octet-stream"}
        self._send("PUT", f"/objects/{digest}", content=data, headers=headers, timeout=httpx.Timeout(300.0, connect=5.0))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _json(self, method: str, path: str, **rest: Any) -> Any:
        answer = self._send(method, path, **rest)
        if not answer.content:
            return {}
        try:
            return answer.json()
        except ValueError:
            text = f"{self.context.url} answered something that is not JSON; check the context's url"
            raise Unreachable("not-a-manager", text) from None

    def _send(self, method: str, path: str, allow: tuple[int, ...] = (), **rest: Any) -> httpx.Response:
        url = self.context.url
        try:
            answer = self._http.request(method, path, **rest)
        except httpx.TimeoutException:
            text = f"the manager at {url} did not answer in time; is the machine overloaded or asleep?"
            raise Unreachable("timeout", text) from None
        except httpx.TransportError as error:
            raise _transport(url, error) from None
        if answer.is_success or answer.status_code in allow:
            return answer
        raise problem(answer, url)


def at(*names: str) -> str:
    """The path of a thing by its names, the first being the noun; raises Misuse("bad-name") for what no thing is called."""
    for name in names[1:]:
        if not ID.fullmatch(name):
            raise Misuse("bad-name", f"{name[:80]!r} is no name; names are 1 to 64 of A-Z a-z 0-9 _ -")
    return "/" + "/".join(names)


def items(answer: Any, noun: str) -> list[dict[str, Any]]:
    """The rows of a list answer: the list itself or the field `noun` of an object."""
    found = answer.get(noun, answer.get("items")) if isinstance(answer, dict) else answer
    if not isinstance(found, list):
        text = f"the answer holds no list of {noun}; manager and command line differ too much in version"
        raise Unreachable("not-a-manager", text)
    return found


def problem(answer: httpx.Response, url: str) -> EdgeopsError:
    """The error that a problem document describes."""
    try:
        body = answer.json()
    except ValueError:
        body = {}
    if not isinstance(body, dict) or not body:
        return Unreachable(f"http-{answer.status_code}", f"{url} answered {answer.status_code} without saying why; check the url")
    reason = str(body.get("reason") or f"http-{answer.status_code}")
    text = str(body.get("detail") or body.get("title") or f"the manager answered {answer.status_code}")
    return _kind(body, answer.status_code)(reason, text)


def _kind(body: dict[str, Any], status: int) -> type[EdgeopsError]:
    named = str(body.get("kind") or body.get("type") or "").rsplit(":", 1)[-1].rsplit("/", 1)[-1].lower()
    if named in KINDS:
        return KINDS[named]
    if status == 422:
        return Rejected
    return Unreachable if status >= 500 or status == 429 else Misuse


def _bearer(context: Context) -> dict[str, str]:
    """No token means no header: health and the CA are open to all, and an empty one is no legal header."""
    if context.token and not all("!" <= char <= "~" for char in context.token):
        text = f"context {context.name!r}: its token holds characters no token has; repair the contexts file"
        raise Misuse("context-token", text)
    return {"authorization": f"Bearer {context.token}"} if context.token else {}


def _trust(context: Context) -> ssl.SSLContext | bool:
    if not context.url.startswith("https://"):
        raise Misuse("not-https", f"context {context.name!r}: {context.url} is not https; tokens never travel in the clear")
    try:
        return ssl.create_default_context(cafile=context.ca)
    except (OSError, ssl.SSLError) as error:
        known = "is missing" if not Path(context.ca).exists() else f"cannot be read ({error})"
        text = f"context {context.name!r}: its CA file {context.ca} {known}; run `edgeops init` or correct it"
        raise Misuse("context-ca", text) from None


def _transport(url: str, error: httpx.TransportError) -> Unreachable:
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        said = f"{url} shows a certificate the context's CA did not sign, or for another name ({text}); wrong context?"
        return Unreachable("tls-untrusted", said)
    said = f"nobody answers at {url} ({text or type(error).__name__}); start it with `edgeops up`"
    return Unreachable("manager-unreachable", said)
