"""A light client of the local inference server: numpy arrays as binary tensors over a Unix socket or loopback TCP."""

import json
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeops.wire.errors import Misuse, Unfit, Unreachable

Array = npt.NDArray[Any]
_LENGTH = "Inference-Header-Content-Length"
_LENGTH_FIELD = f"\r\n{_LENGTH}:".lower().encode()
_CHUNK = 1 << 18
_NAMES = {
    "float32": "FP32", "float64": "FP64", "float16": "FP16", "int64": "INT64", "int32": "INT32", "int16": "INT16",
    "int8": "INT8", "uint64": "UINT64", "uint32": "UINT32", "uint16": "UINT16", "uint8": "UINT8", "bool": "BOOL",
}  # fmt: skip
_DTYPES = {protocol: np.dtype(name) for name, protocol in _NAMES.items()}


class Client:
    """One keep-alive connection, made anew when it was closed; not for several threads at once. `address` is a socket path or
    `host:port`."""

    def __init__(self, address: str, model: str, timeout: float = 10.0) -> None:
        self._address = address
        self._line = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: localhost\r\n"
        self._timeout = timeout
        self._sock: socket.socket | None = None
        self._known: tuple[Any, bytes] = (None, b"")

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model once: arrays by input name in, by output name out (numbers and booleans, no strings).

        Raises Misuse for a refused request, Unfit when the model failed, Unreachable when nobody answers.
        """
        signature = [(name, array.dtype, array.shape) for name, array in inputs.items()]
        if signature != self._known[0]:
            self._known = (signature, self._head(inputs))
        message = b"".join((self._known[1], *(_little(array).tobytes() for array in inputs.values())))
        try:
            return _read(*self._exchange(message))
        except (OSError, ValueError, KeyError) as error:
            self.close()
            raise Unreachable("no-answer", f"the inference server at {self._address} did not answer: {error!r}") from None

    def close(self) -> None:
        """Close the connection; the next call opens another one."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _head(self, inputs: Mapping[str, Array]) -> bytes:
        """Everything before the tensors; the same for every call with these names, dtypes and shapes."""
        described = []
        for name, array in inputs.items():
            kind = _NAMES.get(array.dtype.name)
            if kind is None:
                raise Misuse("wrong-datatype", f"input {name} is {array.dtype}; send numbers or booleans")
            parameters = {"binary_data_size": array.nbytes}
            described.append({"name": name, "datatype": kind, "shape": array.shape, "parameters": parameters})
        header = json.dumps({"inputs": described, "parameters": {"binary_data_output": True}}).encode()
        total = len(header) + sum(array.nbytes for array in inputs.values())
        return f"{self._line}Content-Length: {total}\r\n{_LENGTH}: {len(header)}\r\n\r\n".encode() + header

    def _exchange(self, message: bytes) -> tuple[int, int, bytes]:
        """Status, length of the JSON part (0: all of it) and body of the reply."""
        sock, data = self._begin(message)
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += _some(sock)
        head = data[:end].lower()
        size = _number(head, b"\r\ncontent-length:")
        parts = [data[end + 4 :]]
        missing = size - len(parts[0])
        while missing > 0:
            parts.append(_some(sock))
            missing -= len(parts[-1])
        if b"\r\nconnection: close" in head:
            self.close()
        return int(head[9:12]), _number(head, _LENGTH_FIELD), b"".join(parts)

    def _begin(self, message: bytes) -> tuple[socket.socket, bytes]:
        """Send `message`; the connection and the first bytes of the reply. A kept one may have been closed while it was idle."""
        if self._sock is not None:
            try:
                self._sock.sendall(message)
                if data := self._sock.recv(_CHUNK):
                    return self._sock, data
            except ConnectionError:
                pass
            self.close()
        sock = self._connect()
        sock.sendall(message)
        return sock, _some(sock)

    def _connect(self) -> socket.socket:
        host, colon, port = self._address.rpartition(":")
        if colon and port.isdigit():
            sock = socket.create_connection((host, int(port)), self._timeout)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(self._timeout)
            sock.connect(self._address)
        self._sock = sock
        return sock


def _some(sock: socket.socket) -> bytes:
    chunk = sock.recv(_CHUNK)
    if not chunk:
        raise ConnectionError("the connection ended in the middle of a reply")
    return chunk


def _number(head: bytes, field: bytes) -> int:
    at = head.find(field)
    return int(head[at + len(field) :].split(b"\r\n", 1)[0]) if at >= 0 else 0


def _little(array: Array) -> Array:
    return array if array.dtype.byteorder != ">" else array.astype(array.dtype.newbyteorder("<"))


def _read(status: int, length: int, body: bytes) -> dict[str, Array]:
    header = json.loads(body[:length] if length else body)
    if status != 200:
        kind = Unfit if status >= 500 else Misuse
        raise kind(str(header.get("reason", f"http-{status}")), str(header.get("error", f"HTTP status {status}")))
    results = {}
    at = length
    for output in header["outputs"]:
        size = output["parameters"]["binary_data_size"]
        dtype = _DTYPES[output["datatype"]]
        results[output["name"]] = np.frombuffer(body[at : at + size], dtype).reshape(output["shape"])
        at += size
    return results
