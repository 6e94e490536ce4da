"""The endpoints of the local server: paths of the Open Inference Protocol onto one served model."""

from collections.abc import Callable
from typing import Any

from edgeops.wire.errors import Misuse

from .http import Response
from .oip import LENGTH_HEADER, decode_infer, encode_reply
from .reading import Request
from .replies import SERVER, json_reply
from .served import Served
from .tensors import TensorSpec

_INFER_HEADER = LENGTH_HEADER.lower()


class Routes:
    """Answers requests for one served model; `ready` says whether the worker takes new work."""

    def __init__(self, served: Served, ready: Callable[[], bool]) -> None:
        self._served = served
        self._ready = ready
        model = f"/v2/models/{served.runnable.model}"
        self._bases = (model, f"{model}/versions/{served.runnable.version}")
        self._infer = frozenset(f"{base}/infer" for base in self._bases)
        pages: dict[str, Callable[[], Any]] = {"": self._metadata, "/config": self._config, "/stats": self._stats}
        self._pages = {base + tail: page for base in self._bases for tail, page in pages.items()}
        self._pages |= {"/v2/health/live": lambda: {"live": True}, "/v2": lambda: SERVER, "/v2/": lambda: SERVER}
        self._readiness = frozenset(("/v2/health/ready", *(f"{base}/ready" for base in self._bases)))

    def answer(self, request: Request) -> Response:
        """The reply to one request; raises EdgeopsError, which `refuse` turns into a reply."""
        path = request.path.partition("?")[0]
        if path in self._infer:
            _only(request, "POST")
            return self._run(request)
        if path == "/v2/repository/index":
            _only(request, "POST")
            return json_reply(200, [self._index()])
        if path in self._readiness:
            _only(request, "GET")
            ready = self._ready()
            return json_reply(200 if ready else 503, {"name": self._served.runnable.model, "ready": ready})
        page = self._pages.get(path)
        if page is None:
            raise self._unknown(path)
        _only(request, "GET")
        return json_reply(200, page())

    def _run(self, request: Request) -> Response:
        served = self._served
        engine = served.engine
        asked = decode_infer(request.body, request.headers.get(_INFER_HEADER), engine.inputs, engine.outputs)
        results = served.infer(asked.inputs)
        parts, headers, kind = encode_reply(asked, served.runnable.model, served.runnable.version, results)
        return Response(200, parts, headers, kind)

    def _unknown(self, path: str) -> Misuse:
        runnable = self._served.runnable
        if path.startswith("/v2/models/"):
            message = f"{path} is not served; this is {runnable.model} version {runnable.version}"
            return Misuse("unknown-model", message)
        return Misuse("unknown-path", f"{path} is not an endpoint; see /v2 and /v2/models/{runnable.model}")

    def _index(self) -> dict[str, Any]:
        runnable = self._served.runnable
        state = "READY" if self._ready() else "UNAVAILABLE"
        return {"name": runnable.model, "version": str(runnable.version), "state": state, "reason": ""}

    def _metadata(self) -> dict[str, Any]:
        runnable = self._served.runnable
        return {
            "name": runnable.model,
            "versions": [str(runnable.version)],
            "platform": "onnxruntime_onnx",
            "inputs": [_describe(spec) for spec in self._served.engine.inputs],
            "outputs": [_describe(spec) for spec in self._served.engine.outputs],
            "parameters": {"digest": runnable.digest, "slot": runnable.slot},
        }

    def _config(self) -> dict[str, Any]:
        engine = self._served.engine
        return {
            "name": self._served.runnable.model,
            "platform": "onnxruntime_onnx",
            "backend": "onnxruntime",
            "max_batch_size": 0,
            "input": [_configured(spec) for spec in engine.inputs],
            "output": [_configured(spec) for spec in engine.outputs],
        }

    def _stats(self) -> dict[str, Any]:
        runnable = self._served.runnable
        counted = self._served.counters()
        entry = {
            "name": runnable.model,
            "version": str(runnable.version),
            "inference_count": counted["calls"],
            "execution_count": counted["calls"],
            "inference_stats": {
                "success": {"count": counted["calls"], "ns": counted["total_us"] * 1000},
                "fail": {"count": counted["errors"], "ns": counted["failed_us"] * 1000},
            },
        }
        return {"model_stats": [entry]}


def _only(request: Request, method: str) -> None:
    if request.method != method:
        raise Misuse("wrong-method", f"{request.path} takes {method}, not {request.method}")


def _describe(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _configured(spec: TensorSpec) -> dict[str, Any]:
    kind = "STRING" if spec.datatype == "BYTES" else spec.datatype
    return {"name": spec.name, "data_type": f"TYPE_{kind}", "dims": list(spec.shape)}
