"""The local server speaks the Open Inference Protocol as real clients expect, and refuses nonsense politely."""

import gzip
import http.client
import json
import socket

import numpy as np
import pytest
import tritonclient.http as triton
from onnx import TensorProto, helper

X = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)


@pytest.fixture
def linear(shop, serving, tcp, unix):
    """A linear model served on TCP and Unix sockets; gives (address, path, weight, worker)."""
    runnable, weight = shop.linear()
    worker = serving(runnable, [tcp, unix[0]])
    return f"127.0.0.1:{tcp.getsockname()[1]}", unix[1], weight, worker


def post(address, body, headers=None, path="/v2/models/linear/infer"):
    """POST and return (status, headers, body)."""
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.request("POST", path, body, headers or {})
    reply = connection.getresponse()
    result = reply.status, reply.headers, reply.read()
    connection.close()
    return result


def get(address, path):
    """GET and return (status, JSON)."""
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.request("GET", path)
    reply = connection.getresponse()
    result = reply.status, json.loads(reply.read())
    connection.close()
    return result


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_tritonclient_infer(linear, binary_in, binary_out):
    """tritonclient gets right answers with JSON and binary tensors in both directions."""
    address, _, weight, _ = linear
    with triton.InferenceServerClient(address) as client:
        tensor = triton.InferInput("x", X.shape, "FP32")
        tensor.set_data_from_numpy(X, binary_data=binary_in)
        wanted = triton.InferRequestedOutput("y", binary_data=binary_out)
        reply = client.infer("linear", [tensor], outputs=[wanted], request_id="7", model_version="1")
        np.testing.assert_allclose(reply.as_numpy("y"), X @ weight, rtol=1e-5, atol=1e-6)
        assert (reply.get_response()["model_version"], reply.get_response()["id"]) == ("1", "7")


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_tritonclient_compression_and_default_outputs(linear, compression):
    """Compressed request bodies are read; without named outputs all are returned as binary."""
    address, _, weight, _ = linear
    with triton.InferenceServerClient(address) as client:
        tensor = triton.InferInput("x", X.shape, "FP32")
        tensor.set_data_from_numpy(X)
        reply = client.infer("linear", [tensor], request_compression_algorithm=compression)
        np.testing.assert_allclose(reply.as_numpy("y"), X @ weight, rtol=1e-5, atol=1e-6)


def test_tritonclient_questions(linear):
    """Liveness, readiness, metadata, configuration, statistics and index answer tritonclient."""
    with triton.InferenceServerClient(linear[0]) as client:
        assert client.is_server_live() and client.is_server_ready()
        assert client.is_model_ready("linear") and client.is_model_ready("linear", "1")
        assert not client.is_model_ready("linear", "2") and not client.is_model_ready("other")
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        metadata = client.get_model_metadata("linear", "1")
        assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
        assert metadata["versions"] == ["1"]
        assert client.get_model_config("linear")["output"][0]["data_type"] == "TYPE_FP32"
        assert client.get_inference_statistics("linear")["model_stats"][0]["inference_count"] == 0
        assert client.get_model_repository_index()[0]["state"] == "READY"


def test_tritonclient_error(linear):
    """A refused request reaches tritonclient as its own exception with our message."""
    with triton.InferenceServerClient(linear[0]) as client:
        tensor = triton.InferInput("x", [1, 3], "FP32")
        tensor.set_data_from_numpy(X[:1, :3])
        with pytest.raises(triton.InferenceServerException, match="shape"):
            client.infer("linear", [tensor])


def test_strings(shop, serving, tcp):
    """BYTES tensors (a classifier with named classes) go through tritonclient in both forms."""
    make = helper.make_tensor_value_info
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    runnable = shop.save("names", nodes, [make("x", TensorProto.STRING, ["n"])], [make("y", TensorProto.STRING, ["n"])])
    serving(runnable, [tcp])
    words = np.array(["größe", "b", ""], dtype=object)
    with triton.InferenceServerClient(f"127.0.0.1:{tcp.getsockname()[1]}") as client:
        for binary in (True, False):
            tensor = triton.InferInput("x", [3], "BYTES")
            tensor.set_data_from_numpy(words, binary_data=binary)
            reply = client.infer("names", [tensor], outputs=[triton.InferRequestedOutput("y", binary_data=binary)])
            got = [item.decode() if isinstance(item, bytes) else item for item in reply.as_numpy("y")]
            assert got == list(words)


def test_unix_socket_and_nested_json(linear):
    """Nested JSON data over the Unix socket gives the same answer."""
    _, path, weight, _ = linear
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [5, 4], "data": X.tolist()}]}).encode()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        head = f"POST /v2/models/linear/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        sock.sendall(head.encode())
        for at in range(0, len(body), 50):
            sock.sendall(body[at : at + 50])
        reply = b"".join(iter(lambda: sock.recv(65536), b""))
    output = json.loads(reply.partition(b"\r\n\r\n")[2])["outputs"][0]
    np.testing.assert_allclose(np.reshape(output["data"], output["shape"]), X @ weight, rtol=1e-5, atol=1e-6)


def _input(**changes):
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4], **changes}]}


BAD = {
    "not-json": (b"{", {}, 400),
    "deep-json": (b"[" * 100_000, {}, 400),
    "no-inputs": (b"{}", {}, 400),
    "input-no-object": (b'{"inputs":[3]}', {}, 400),
    "unknown-input": (json.dumps(_input(name="z")).encode(), {}, 400),
    "wrong-datatype": (json.dumps(_input(datatype="INT64")).encode(), {}, 400),
    "wrong-shape": (json.dumps(_input(shape=[1, 5])).encode(), {}, 400),
    "negative-shape": (json.dumps(_input(shape=[-1, 4])).encode(), {}, 400),
    "huge-shape": (json.dumps(_input(shape=[1 << 39, 4])).encode(), {}, 400),
    "text-data": (json.dumps(_input(data=["a", "b", "c", "d"])).encode(), {}, 400),
    "overflow": (json.dumps(_input(data=[1e300, 0, 0, 0])).encode(), {}, 400),
    "no-data": (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4]}]}', {}, 400),
    "parameters": (json.dumps(_input(parameters=[1])).encode(), {}, 400),
    "binary-claim": (json.dumps(_input(parameters={"binary_data_size": 16})).encode(), {}, 400),
    "shared-memory": (json.dumps(_input(parameters={"shared_memory_region": "r"})).encode(), {}, 400),
    "header-length": (b"{}", {"Inference-Header-Content-Length": "99"}, 400),
    "unknown-output": (json.dumps({**_input(), "outputs": [{"name": "q"}]}).encode(), {}, 400),
    "stray-bytes": (b'{"inputs":[]}0000', {"Inference-Header-Content-Length": "13"}, 400),
    "broken-gzip": (b"nonsense", {"Content-Encoding": "gzip"}, 400),
    "cut-gzip": (gzip.compress(json.dumps(_input()).encode())[:-9], {"Content-Encoding": "gzip"}, 400),
    "bomb": (gzip.compress(bytes(65 << 20), 1), {"Content-Encoding": "gzip"}, 413),
    "encoding": (b"x", {"Content-Encoding": "br"}, 400),
    "chunked": (b"0\r\n\r\n", {"Transfer-Encoding": "chunked"}, 411),
    "too-large": (bytes(1 << 20), {"Content-Length": str(65 << 20)}, 413),
    "length-no-number": (b"", {"Content-Length": "-1"}, 400),
    "long-head": (b"", {"X": "y" * 20_000}, 431),
}


def test_bad_requests(linear):
    """Every malformed request gets a 4xx with an error text, and the worker goes on serving right answers."""
    address, _, weight, worker = linear
    for name, (body, headers, status) in BAD.items():
        got, _, text = post(address, body, headers)
        assert (name, got) == (name, status), text
        assert json.loads(text)["error"] and json.loads(text)["reason"]
    status, _, text = post(address, json.dumps(_input()).encode())
    np.testing.assert_allclose(json.loads(text)["outputs"][0]["data"], np.float32([1, 2, 3, 4]) @ weight, rtol=1e-5)
    assert status == 200 and worker.collect()["counters"]["errors"] == 0


@pytest.mark.parametrize("path", ["/", "/v1", "/v2/models/other", "/v2/models/linear/versions/2", "/v2/models/linear/nothing"])
def test_unknown_paths(linear, path):
    """An unknown path is 404 with an error in JSON."""
    status, reply = get(linear[0], path)
    assert status == 404 and reply["error"]


def test_wrong_method(linear):
    """Asking an endpoint with the wrong method is 405."""
    assert get(linear[0], "/v2/models/linear/infer")[0] == 405 and post(linear[0], b"", path="/v2")[0] == 405


def test_garbage_bytes(linear):
    """Bytes that are not HTTP end with a 400 and the server lives."""
    host, _, port = linear[0].partition(":")
    for garbage in (b"\x16\x03\x01\x02\x00\x01" * 100 + b"\r\n\r\n", b"GET /v2\r\n\r\n", b"GET /v2 HTTP/1.1\r\n: x\r\n\r\n"):
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(garbage)
            assert sock.recv(100).startswith(b"HTTP/1.1 400")
    assert get(linear[0], "/v2/health/live") == (200, {"live": True})


def test_pipelined_and_kept_alive(linear):
    """Requests sent back to back on one connection are all answered in order; HTTP/1.0 is closed."""
    host, _, port = linear[0].partition(":")
    with socket.create_connection((host, int(port))) as sock:
        sock.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 3 + b"GET /v2/health/ready HTTP/1.0\r\n\r\n")
        replies = b"".join(iter(lambda: sock.recv(65536), b""))
    assert replies.count(b"HTTP/1.1 200 OK") == 4 and replies.count(b'"live": true') == 3


def test_nan_output_as_json(shop, serving, tcp):
    """An output JSON cannot say is an error that names the way out; binary gives it."""
    make = helper.make_tensor_value_info
    nodes = [helper.make_node("Log", ["x"], ["y"])]
    serving(shop.save("log", nodes, [make("x", 1, [1])], [make("y", 1, [1])]), [tcp])
    address = f"127.0.0.1:{tcp.getsockname()[1]}"
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [-1]}]}
    status, _, text = post(address, json.dumps(body), path="/v2/models/log/infer")
    assert status == 400 and b"binary_data" in text
    body["parameters"] = {"binary_data_output": True}
    status, headers, data = post(address, json.dumps(body), path="/v2/models/log/infer")
    assert status == 200 and np.isnan(np.frombuffer(data[int(headers["Inference-Header-Content-Length"]) :], "<f4")).all()


def test_too_many_connections(linear):
    """When all places are taken by idle clients the one that has been idle longest makes room."""
    host, _, port = linear[0].partition(":")
    held = [socket.create_connection((host, int(port))) for _ in range(32)]
    for sock in held:
        sock.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(1000)
    assert get(linear[0], "/v2/health/live")[0] == 200
    assert held[0].recv(1000) == b""
    held[-1].sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    assert held[-1].recv(1000)
    for sock in held:
        sock.close()


def test_statistics(linear):
    """Counters and a window of counts come out of a worker that has served."""
    address, _, _, worker = linear
    for _ in range(60):
        assert post(address, json.dumps(_input()).encode())[0] == 200
    collected = worker.collect()
    counters = collected["counters"]
    assert counters["calls"] == 60 and 0 < counters["latency_us_p50"] <= counters["latency_us_p99"]
    assert isinstance(collected["window"], bytes)
