"""A small real HTTPS manager for the command line to talk to, on loopback and a free port."""

import datetime
import ipaddress
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import onnx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from onnx import TensorProto, helper, numpy_helper

from edgeops.cli import context
from edgeops.cli.app import run

TOKEN = "t0ken-of-an-operator"


@dataclass
class Straw:
    """Answers by (method, path): a value, or a function of (query, body); what was asked is kept in `asked`."""

    url: str = ""
    ca: Path = Path()
    answers: dict[tuple[str, str], Any] = field(default_factory=dict)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)

    def problem(self, method: str, path: str, status: int, reason: str, detail: str) -> None:
        """Answer with a problem document."""
        self.answers[method, path] = (status, {"title": "no", "detail": detail, "reason": reason, "status": status})


def _handler(straw: Straw) -> type[BaseHTTPRequestHandler]:
    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            parts = urlsplit(self.path)
            path = parts.path.removeprefix("/api/v1")
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            if path.startswith("/objects/"):
                return self._object(path.rsplit("/", 1)[1], raw)
            body = json.loads(raw) if raw else None
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            straw.asked.append((self.command, path, body if body is not None else query))
            if self.headers.get("authorization") != f"Bearer {TOKEN}":
                return self._send(401, {"title": "no", "detail": "unknown token", "reason": "token-unknown", "status": 401})
            found = straw.answers.get((self.command, path))
            if found is None:
                return self._send(404, {"title": "no", "detail": f"no {path}", "reason": "not-found", "status": 404})
            found = found(query, body) if callable(found) else found
            status, value = found if isinstance(found, tuple) else (200, found)
            return self._send(status, value)

        do_GET = do_POST = do_PATCH = do_PUT = do_HEAD = do_DELETE = answer  # noqa: N815

        def _object(self, digest: str, raw: bytes) -> None:
            if self.command == "PUT":
                straw.objects[digest] = raw
            self._send(200 if digest in straw.objects else 404, {})

        def _send(self, status: int, value: Any) -> None:
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    return Answering


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed CA certificate for loopback and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    title = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(title).issuer_name(title).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1)).add_extension(x509.BasicConstraints(True, None), True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    cert, private = folder / f"{name}.crt", folder / f"{name}.key"
    cert.write_bytes(made.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return cert, private


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty contexts file of this test alone."""
    path = tmp_path / "config" / "contexts.toml"
    monkeypatch.setenv("EDGEOPS_CONFIG", str(path))
    monkeypatch.delenv("EDGEOPS_CONTEXT", raising=False)
    return path


@pytest.fixture
def straw(tmp_path: Path, config: Path) -> Iterator[Straw]:
    """A manager of straw over real TLS, already the current context."""
    cert, key = certificate(tmp_path, "ca")
    straw = Straw(ca=cert)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(straw))
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trust.load_cert_chain(cert, key)
    server.socket = trust.wrap_socket(server.socket, server_side=True)
    straw.url = f"https://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    context.save(context.Contexts().added(context.Context("straw", straw.url, str(cert), TOKEN)))
    yield straw
    server.shutdown()
    server.server_close()
    thread.join(5)


@dataclass(frozen=True)
class Ran:
    """What one command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object on stdout."""
        return json.loads(self.out)


@pytest.fixture
def edgeops(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run a command line in this process exactly as the console script does."""

    def call(*arguments: str) -> Ran:
        capsys.readouterr()
        code = run(list(arguments))
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return call


@pytest.fixture
def digits(tmp_path: Path) -> tuple[str, ...]:
    """A tiny linear classifier with well separated classes, and its data: SOURCE --calib --eval."""
    rng = np.random.default_rng(7)
    centres = rng.normal(size=(4, 16)).astype(np.float32) * 3
    y = rng.integers(0, 4, 1600)
    x = (centres[y] + rng.normal(size=(1600, 16)) * 0.3).astype(np.float32)
    weights = numpy_helper.from_array(centres.T.copy(), "w")
    bias = numpy_helper.from_array((-0.5 * (centres**2).sum(1)).astype(np.float32), "b")
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["logits"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, 4])], [weights, bias],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(made, str(tmp_path / "model.onnx"))
    np.savez(tmp_path / "calib.npz", x=x[:400])
    y[400:450] = (y[400:450] + 1) % 4  # labels nobody gets right, so that a floor of 1.0 fails
    np.savez(tmp_path / "eval.npz", x=x[400:], y=y[400:])
    return (str(tmp_path / "model.onnx"), "--calib", str(tmp_path / "calib.npz"), "--eval", str(tmp_path / "eval.npz"))
