"""A light client of the local inference server: numpy arrays as binary tensors over a Unix socket or loopback TCP."""

import http.client
import json
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeops.wire.errors import Misuse, Unreachable

Array = npt.NDArray[Any]
_LENGTH = "Inference-Header-Content-Length"
_NAMES = {
    "float32": "FP32", "float64": "FP64", "float16": "FP16", "int64": "INT64", "int32": "INT32", "int16": "INT16",
    "int8": "INT8", "uint64": "UINT64", "uint32": "UINT32", "uint16": "UINT16", "uint8": "UINT8", "bool": "BOOL",
}  # fmt: skip
_DTYPES = {protocol: np.dtype(name) for name, protocol in _NAMES.items()}


class Client:
    """One keep-alive connection; not for several threads at once. `address` is a socket path or `host:port`."""

    def __init__(self, address: str, model: str, timeout: float = 10.0) -> None:
        self._path = f"/v2/models/{model}/infer"
        host, _, port = address.rpartition(":")
        self._http = http.client.HTTPConnection(host or "localhost", int(port) if host else 80, timeout=timeout)
        self._unix = None if host else address

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model once: arrays by input name in, by output name out (numbers and booleans, no strings).

        Raises Misuse for a refused request and Unreachable when nobody answers.
        """
        described, blobs = [], []
        for name, array in inputs.items():
            kind = _NAMES.get(str(array.dtype))
            if kind is None:
                raise Misuse("wrong-datatype", f"input {name} is {array.dtype}; send numbers or booleans")
            blobs.append(array.tobytes())
            parameters = {"binary_data_size": len(blobs[-1])}
            described.append({"name": name, "datatype": kind, "shape": array.shape, "parameters": parameters})
        header = json.dumps({"inputs": described, "parameters": {"binary_data_output": True}}).encode()
        status, length, body = self._post(b"".join((header, *blobs)), len(header))
        return _read(status, length, body)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _post(self, body: bytes, header_length: int) -> tuple[int, int, bytes]:
        try:
            if self._http.sock is None and self._unix is not None:
                sock = socket.socket(socket.AF_UNIX)
                sock.settimeout(self._http.timeout)
                sock.connect(self._unix)
                self._http.sock = sock
            self._http.request("POST", self._path, body, {_LENGTH: str(header_length)})
            reply = self._http.getresponse()
            return reply.status, int(reply.headers.get(_LENGTH, 0)), reply.read()
        except (OSError, http.client.HTTPException) as error:
            self._http.close()
            where = self._unix or f"{self._http.host}:{self._http.port}"
            raise Unreachable("no-answer", f"the inference server at {where} did not answer: {error!r}") from None


def _read(status: int, length: int, body: bytes) -> dict[str, Array]:
    header = json.loads(body[:length] if length else body)
    if status != 200:
        raise Misuse(str(header.get("reason", f"http-{status}")), str(header.get("error", f"HTTP status {status}")))
    results = {}
    at = length
    for output in header["outputs"]:
        size = output["parameters"]["binary_data_size"]
        dtype = _DTYPES[output["datatype"]]
        results[output["name"]] = np.frombuffer(body[at : at + size], dtype).reshape(output["shape"])
        at += size
    return results
