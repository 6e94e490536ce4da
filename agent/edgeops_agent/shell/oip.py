"""The Open Inference Protocol v2: inference requests and replies, JSON and binary tensors, to and from arrays."""

import contextlib
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeops.wire.errors import Misuse

from .tensors import Array, Tensors, TensorSpec, from_bytes, from_list, to_bytes

LENGTH_HEADER = "Inference-Header-Content-Length"
MAX_RANK = 16
MAX_JSON, LARGE_JSON = 4 << 20, 64 << 10
# Small values take twenty times their text in memory: large ones are read one after the other.
_READING = threading.Lock()


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What the client asks: arrays by name, and the wanted outputs in order, each with whether it goes out as bytes."""

    id: str | None
    inputs: dict[str, Array]
    outputs: tuple[tuple[TensorSpec, bool], ...]


def decode_infer(
    body: memoryview, header_length: str | None, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> InferRequest:
    """Read an inference request body; `header_length` is the value of `Inference-Header-Content-Length` or None.

    Raises Misuse: bad-json, json-too-large, bad-request, unknown-input, unknown-output, wrong-datatype, wrong-size, wrong-data.
    """
    split = _header_size(header_length, len(body))
    if split > MAX_JSON:
        raise Misuse("json-too-large", f"{split} bytes of JSON, {MAX_JSON} are read; send the tensors as binary data")
    with _READING if split > LARGE_JSON else contextlib.nullcontext():
        return _decode(body, split, inputs, outputs)


def _decode(body: memoryview, split: int, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> InferRequest:
    try:
        header = _DECODER.decode(str(body[:split], "utf-8"))
    except (ValueError, RecursionError) as error:
        raise Misuse("bad-json", f"the request header is not JSON: {error}") from None
    if not isinstance(header, dict) or not isinstance(header.get("inputs"), list):
        raise Misuse("bad-request", "the request needs an object with a list of inputs")
    by_name = {spec.name: spec for spec in inputs}
    arrays: dict[str, Array] = {}
    rest = body[split:]
    for raw in header["inputs"]:
        name, array, used = _input(raw, by_name, rest)
        if name in arrays:
            raise Misuse("bad-request", f"input {name} is there twice")
        arrays[name] = array
        rest = rest[used:]
    if len(rest):
        raise Misuse("wrong-size", f"{len(rest)} bytes of the body belong to no input")
    request_id = header.get("id")
    return InferRequest(None if request_id is None else str(request_id), arrays, _wanted(header, outputs))


def encode_reply(
    request: InferRequest, model: str, version: int, results: Tensors
) -> tuple[list[bytes], dict[str, str], str]:
    """The reply as body parts, extra headers and content type; raises Misuse("non-finite") where JSON has no number for a value."""
    described: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for spec, binary in request.outputs:
        array = results[spec.name]
        entry: dict[str, Any] = {"name": spec.name, "datatype": spec.datatype, "shape": list(array.shape)}
        if binary:
            blobs.append(to_bytes(spec, array))
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise Misuse("non-finite", f"output {spec.name} is not finite, JSON cannot say that; ask for binary_data")
            entry["data"] = array.ravel().tolist()
        described.append(entry)
    reply: dict[str, Any] = {"model_name": model, "model_version": str(version), "outputs": described}
    if request.id is not None:
        reply["id"] = request.id
    header = json.dumps(reply, separators=(",", ":")).encode()
    if not blobs:
        return [header], {}, "application/json"
    return [header, *blobs], {LENGTH_HEADER: str(len(header))}, "application/octet-stream"


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number in JSON; send it as binary data")


_DECODER = json.JSONDecoder(parse_constant=_no_number)


def _header_size(text: str | None, size: int) -> int:
    if text is None:
        return size
    if not text.isascii() or not text.isdigit() or len(text) > 12 or int(text) > size:
        raise Misuse("bad-request", f"{LENGTH_HEADER} {text!r} does not fit a body of {size} bytes")
    return int(text)


def _input(raw: Any, specs: dict[str, TensorSpec], rest: memoryview) -> tuple[str, Array, int]:
    if not isinstance(raw, dict):
        raise Misuse("bad-request", "an input is not an object")
    spec = specs.get(str(raw.get("name")))
    if spec is None:
        raise Misuse("unknown-input", f"the model has no input {raw.get('name')!r}, it has {', '.join(specs)}")
    if raw.get("datatype") != spec.datatype:
        raise Misuse("wrong-datatype", f"input {spec.name} is {raw.get('datatype')}, the model takes {spec.datatype}")
    shape = _shape(raw.get("shape"), spec)
    parameters = _parameters(raw)
    if "shared_memory_region" in parameters:
        raise Misuse("unsupported", "shared memory is not served; send binary data")
    size = parameters.get("binary_data_size")
    if size is None:
        if "data" not in raw:
            raise Misuse("bad-request", f"input {spec.name} has neither data nor binary_data_size")
        return spec.name, from_list(spec, shape, raw["data"]), 0
    if type(size) is not int or not 0 <= size <= len(rest):
        raise Misuse("wrong-size", f"input {spec.name} claims {size!r} binary bytes, the body has {len(rest)} left")
    return spec.name, from_bytes(spec, shape, rest[:size]), size


def _shape(raw: Any, spec: TensorSpec) -> tuple[int, ...]:
    if (
        not isinstance(raw, list)
        or len(raw) > MAX_RANK
        or not all(type(size) is int and 0 <= size < 1 << 40 for size in raw)
    ):
        raise Misuse("wrong-shape", f"input {spec.name} has shape {raw!r}, a list of sizes is needed")
    return tuple(raw)


def _wanted(header: dict[str, Any], specs: Sequence[TensorSpec]) -> tuple[tuple[TensorSpec, bool], ...]:
    all_binary = bool(_parameters(header).get("binary_data_output", False))
    wanted = header.get("outputs")
    if not wanted:
        return tuple((spec, all_binary) for spec in specs)
    by_name = {spec.name: spec for spec in specs}
    result = []
    for raw in wanted if isinstance(wanted, list) else [None]:
        spec = by_name.get(str(raw.get("name"))) if isinstance(raw, dict) else None
        if spec is None:
            raise Misuse("unknown-output", f"the model has no output {raw!r}, it has {', '.join(by_name)}")
        parameters = _parameters(raw)
        if "shared_memory_region" in parameters or parameters.get("classification"):
            raise Misuse("unsupported", f"output {spec.name}: shared memory and classification are not served")
        result.append((spec, bool(parameters.get("binary_data", all_binary))))
    return tuple(result)


def _parameters(raw: Any) -> dict[str, Any]:
    parameters = raw.get("parameters", {})
    if not isinstance(parameters, dict):
        raise Misuse("bad-request", "parameters must be an object")
    return parameters
