"""A client that forgives nothing: one connection, kept for ever, never made anew; whatever ends it or is no answer has failed."""

import json
import random
import socket
import threading
import time
from dataclasses import dataclass, field

import numpy as np

from .models import NAME, X

TIMEOUT_S = 30.0
_LENGTH = "inference-header-content-length"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: when the request began and ended (monotonic seconds), and the model's version and numbers."""

    began: float
    ended: float
    version: str
    numbers: np.ndarray


@dataclass
class Caller:
    """Asks again and again from a thread of its own, with gaps of up to `gap_s` seconds; its requests are JSON or `binary`."""

    address: tuple[str, int] | str
    binary: bool
    gap_s: float
    rng: random.Random
    replies: list[Reply] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._ask_on, daemon=True)
        self._sock: socket.socket | None = None

    @property
    def asked(self) -> int:
        """How many of its requests are over."""
        return len(self.replies) + len(self.failed)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """Stop, after the request that is under way."""
        self._over.set()
        self._thread.join(2 * TIMEOUT_S)

    def _ask_on(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            try:
                version, numbers = self._ask()
                self.replies.append(Reply(began, time.monotonic(), version, numbers))
            except (OSError, ValueError, KeyError, IndexError) as error:
                self.failed.append(f"{began:.3f} +{time.monotonic() - began:.3f} s: {error!r}")
                self._sock = None  # to go on counting
            self._over.wait(self.rng.uniform(0, self.gap_s))

    def _ask(self) -> tuple[str, np.ndarray]:
        if self._sock is None:
            self._sock = socket.socket(socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET)
            self._sock.settimeout(TIMEOUT_S)
            self._sock.connect(self.address)
        self._sock.sendall(_request(self.binary))
        status, headers, body = _reply(self._sock)
        if status != 200 or headers.get("connection", "") == "close":
            raise ValueError(f"{status} {headers} {body[:200]!r}")
        size = int(headers.get(_LENGTH, len(body)))
        answer = json.loads(body[:size])
        [output] = answer["outputs"]
        numbers = np.frombuffer(body[size:], "<f4") if self.binary else np.array(output["data"], np.float32)
        return str(answer["model_version"]), numbers.ravel()


def _request(binary: bool) -> bytes:
    tensor: dict[str, object] = {"name": "x", "shape": list(X.shape), "datatype": "FP32"}
    tail, more = (X.tobytes(), {"parameters": {"binary_data_output": True}}) if binary else (b"", {})
    tensor |= {"parameters": {"binary_data_size": X.nbytes}} if binary else {"data": X.ravel().tolist()}
    body = json.dumps({"inputs": [tensor], **more}).encode()
    head = f"POST /v2/models/{NAME}/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body) + len(tail)}\r\n"
    split = f"{_LENGTH}: {len(body)}\r\n" if binary else ""
    return f"{head}{split}\r\n".encode() + body + tail


def _reply(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += _some(sock)
    first, *lines = data[:end].decode("latin-1").lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    body = data[end + 4 :]
    while len(body) < int(headers["content-length"]):
        body += _some(sock)
    return int(first.split()[1]), headers, body


def _some(sock: socket.socket) -> bytes:
    if not (data := sock.recv(1 << 16)):
        raise ConnectionError("the connection was closed")
    return data
