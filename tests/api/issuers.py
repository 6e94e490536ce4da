"""Issuers to log in with: a real one (nanoidp, a process of its own), and a straw one that says whatever a test wants."""

import base64
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

PATIENCE_S = 60.0
CLIENT, AUDIENCE = "edgeops-cli", "edgeops"
ROLES = ("groups fleet-admins admin", "groups fleet-ops operator", "groups fleet-watch viewer")
SETTINGS = """
config_version: 1
server: {{host: "127.0.0.1", port: {port}}}
oauth:
  issuer: "{url}"
  audience: "edgeops"
  token_expiry_minutes: 60
  clients:
    - {{client_id: "edgeops-cli", token_endpoint_auth_method: "none"}}
    - {{client_id: "payroll", token_endpoint_auth_method: "none"}}
device_flow: {{polling_interval: 1}}
"""
USERS = """
config_version: 1
users:
  anna: {password: "pw", roles: ["USER"], groups: ["fleet-admins", "fleet-watch"], tenant: "default"}
  olga: {password: "pw", roles: ["USER"], groups: ["fleet-ops"], tenant: "default"}
  nemo: {password: "pw", roles: ["USER"], tenant: "default"}
"""


class Nanoidp:
    """The real issuer at `url`, with its keys in reach, so that a test can sign what the issuer would never."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url

    def tokens(self, user: str, client: str = CLIENT) -> dict[str, str]:
        """What the token endpoint gives a user who types a password."""
        form = {"grant_type": "password", "client_id": client, "username": user, "password": "pw", "scope": "openid profile"}
        answer = httpx.post(f"{self.url}/token", data=form, trust_env=False, timeout=PATIENCE_S)
        return dict(answer.raise_for_status().json())

    def approve(self, code: str, user: str, action: str = "authorize") -> None:
        """What the person does in a browser for a device code."""
        form = {"user_code": code, "username": user, "password": "pw", "action": action}
        httpx.post(f"{self.url}/device", data=form, trust_env=False, timeout=PATIENCE_S).raise_for_status()

    def rotate(self) -> None:
        """Sign with a new key from now on."""
        httpx.post(f"{self.url}/api/keys/rotate", trust_env=False, timeout=PATIENCE_S).raise_for_status()

    @property
    def key(self) -> rsa.RSAPrivateKey:
        """The key it signs with."""
        found = load_pem_private_key((self.folder / "keys" / "rsa_private.pem").read_bytes(), None)
        assert isinstance(found, rsa.RSAPrivateKey)
        return found

    @property
    def kid(self) -> str:
        """That key's name."""
        return (self.folder / "keys" / "kid.txt").read_text().strip()


@contextmanager
def nanoidp(folder: Path) -> Iterator[Nanoidp]:
    """Run the real issuer on a free port; its address must be known before it starts, so somebody else may be faster."""
    folder.mkdir()
    (folder / "users.yaml").write_text(USERS)
    url, process = next(started for _ in range(5) if (started := _start(folder)))
    try:
        yield Nanoidp(folder, url)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _start(folder: Path) -> tuple[str, "subprocess.Popen[bytes]"] | None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    (folder / "settings.yaml").write_text(SETTINGS.format(port=port, url=url))
    with (folder / "log").open("wb") as log:
        words = [Path(sys.executable).with_name("nanoidp"), "--config", "."]
        process = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log)
    deadline = time.monotonic() + PATIENCE_S
    while not _answers(url):
        if process.poll() is not None:
            return None
        assert time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.05)
    return url, process


def _answers(url: str) -> bool:
    try:
        answer = httpx.get(f"{url}/.well-known/openid-configuration", trust_env=False, timeout=PATIENCE_S)
        return bool(answer.json().get("issuer") == url)
    except (httpx.TransportError, ValueError):
        return False


class Straw:
    """An issuer of our own making: its documents are what a test sets, and it counts how often it is asked."""

    def __init__(self, url: str) -> None:
        self.url, self.asked = url, 0
        self.discovery: dict[str, Any] = {"issuer": url, "jwks_uri": f"{url}/keys"}
        self.keys: list[dict[str, Any]] = []
        # Answers to POST by path, each given once, and the forms that came.
        self.posts: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        self.forms: dict[str, list[dict[str, str]]] = {}
        self.answer: Callable[[BaseHTTPRequestHandler], None] | None = None

    def publish(self, key: Any, name: str, **more: Any) -> None:
        """Add a public key to what is published."""
        self.keys.append(public_jwk(key) | {"kid": name, "use": "sig"} | more)


@contextmanager
def straw(wrap: Callable[[socket.socket], socket.socket] | None = None) -> Iterator[Straw]:
    """Run a straw issuer; `wrap` may make its socket one of TLS."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked += 1
            if told.answer is not None:
                told.answer(self)
                return
            self.say(200, {"keys": told.keys} if self.path == "/keys" else told.discovery)

        def do_POST(self) -> None:
            form = dict(parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode()))
            told.forms.setdefault(self.path, []).append(form)
            self.say(*told.posts[self.path].pop(0))

        def say(self, status: int, what: dict[str, Any]) -> None:
            body = json.dumps(what).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    scheme = "http"
    if wrap:
        server.socket, scheme = wrap(server.socket), "https"
    told = Straw(f"{scheme}://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        thread.join(PATIENCE_S)
        server.server_close()


def public_jwk(key: Any) -> dict[str, Any]:
    """The public half of a private key as a JWK."""
    if isinstance(key, rsa.RSAPrivateKey):
        return dict(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True))
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return dict(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True))
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    return dict(jwt.algorithms.OKPAlgorithm.to_jwk(key.public_key(), as_dict=True))


def unsigned(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    """A JWT put together by hand, with whatever signature."""
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
