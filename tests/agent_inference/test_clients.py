"""Clients that mean harm, or only behave badly: others are served, every answer is JSON, nothing dies or grows without bound."""

import contextlib
import http.client
import json
import random
import socket
import struct
import threading

import numpy as np
import psutil
import pytest
from onnx import TensorProto, helper

from edgeops.wire.errors import Misuse
from edgeops_agent.shell.http import HttpServer, Response
from edgeops_agent.shell.oip import decode_infer
from edgeops_agent.shell.reading import HttpLimits
from edgeops_agent.shell.replies import refuse

X = np.float32([[1, 2, 3, 4]])
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}).encode()
PATH = "/v2/models/linear/infer"


@pytest.fixture
def linear(shop, serving, tcp):
    """A linear model served on TCP; gives (port, worker)."""
    worker = serving(shop.linear()[0], [tcp])
    return tcp.getsockname()[1], worker


def ask(port, body=BODY, path=PATH, headers=None, timeout=20):
    """One request on a connection of its own: (status, JSON)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    with contextlib.closing(connection):
        connection.request("POST" if body is not None else "GET", path, body, headers or {})
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())


def raw(port, data, timeout=10):
    """The bytes that come back for raw bytes, to the end of the stream."""
    with socket.create_connection(("127.0.0.1", port), timeout) as sock:
        sock.sendall(data)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65536), b""))


def healthy(port, worker):
    """A sound request is answered and nothing was counted as the model's fault."""
    status, answer = ask(port)
    assert (status, answer.get("model_name")) == (200, "linear"), answer
    assert worker.alive and worker.collect()["counters"]["errors"] == 0


def threads(worker):
    """How many threads the worker has."""
    return psutil.Process(worker.pid).num_threads()


def test_two_hundred_idle_connections(linear):
    """Connections that never ask anything do not keep others out, and cost a bounded number of threads."""
    port, worker = linear
    held = []
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            held.append(stack.enter_context(socket.create_connection(("127.0.0.1", port))))
        for _ in range(5):
            healthy(port, worker)
        assert threads(worker) < 60
    healthy(port, worker)


def test_slow_loris(linear, wait_for):
    """Connections that send a request byte by byte for ever, in head or body, do not keep others out."""
    port, worker = linear
    over = threading.Event()
    beginnings = (b"GET /v2/health/live HTTP/1.1\r\nX: ", f"POST {PATH} HTTP/1.1\r\nContent-Length: 1000\r\n\r\n".encode())

    def drip(number):
        while not over.is_set():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as sock:
                sock.sendall(beginnings[number % 2])
                while not over.wait(0.2):
                    sock.sendall(b"a")

    drips = [threading.Thread(target=drip, args=(number,)) for number in range(64)]
    for each in drips:
        each.start()
    try:
        wait_for(lambda: threads(worker) > 34)
        served = 0
        for _ in range(60):
            with contextlib.suppress(OSError, http.client.HTTPException):
                served += ask(port)[0] == 200
            if served == 15:
                break
        assert served == 15
    finally:
        over.set()
        for each in drips:
            each.join()
    healthy(port, worker)


def test_an_idle_client_of_long_standing_is_not_thrown_out_for_nothing(linear):
    """Keep-alive connections stay while there is room."""
    port, _ = linear
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as first:
        for _ in range(3):
            for _ in range(10):
                ask(port)
            first.request("GET", "/v2/health/live")
            assert first.getresponse().read()


def test_claims_of_large_bodies(linear):
    """Thirty requests that claim sixty megabytes each and send nothing take no memory from those who do send."""
    port, worker = linear
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            sock.sendall(f"POST {PATH} HTTP/1.1\r\nContent-Length: {60 << 20}\r\n\r\n".encode())
        size = 4 * 4 * 200_000
        header = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [200_000, 4],
                                         "parameters": {"binary_data_size": size}}]}).encode()
        body = header + bytes(size)
        assert ask(port, body, headers={"Inference-Header-Content-Length": str(len(header))})[0] == 200
        healthy(port, worker)
        assert psutil.Process(worker.pid).memory_info().rss < 400 << 20


@pytest.mark.parametrize("unit", [b"[],", b"{},", b'"a",', b"0.1,", b"1,"])
def test_huge_json(linear, unit):
    """Ten clients at once with thirty megabytes of small JSON values are refused; the worker loses no call to them."""
    port, worker = linear
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[' + unit * ((30 << 20) // len(unit)) + b"1]}]}"
    answers = []

    def send():
        with contextlib.suppress(OSError, http.client.HTTPException):
            answers.append(ask(port, body, timeout=60))

    clients = [threading.Thread(target=send) for _ in range(10)]
    for each in clients:
        each.start()
    for _ in range(5):
        healthy(port, worker)
    for each in clients:
        each.join()
    assert all(status in (413, 503) and answer["error"] for status, answer in answers)
    healthy(port, worker)


@pytest.mark.parametrize("unit", [b"[],", b"{},", b'"a",', b"0.1,"])
def test_large_json_within_the_limit(linear, unit):
    """As much JSON as is let in, from several clients at once, is parsed within the worker's memory."""
    port, worker = linear
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[' + unit * ((3 << 20) // len(unit)) + b"1]}]}"
    statuses = []
    clients = [threading.Thread(target=lambda: statuses.append(ask(port, body, timeout=60)[0])) for _ in range(8)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    assert set(statuses) <= {400, 503} and 400 in statuses
    healthy(port, worker)


ODD = {
    "nan": (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[NaN,1,1,1]}]}', 400),
    "infinity": (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[Infinity,1,1,1]}]}', 400),
    "name-twice": (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[1,1,1,1]},'
                   b'{"name":"x","datatype":"FP32","shape":[1,4],"data":[2,1,1,1]}]}', 400),
    "name-object": (b'{"inputs":[{"name":{"a":1},"datatype":"FP32","shape":[1,4],"data":[1,1,1,1]}]}', 400),
    "datatype-list": (b'{"inputs":[{"name":"x","datatype":[],"shape":[1,4],"data":[1,1,1,1]}]}', 400),
    "shape-bool": (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[true,4],"data":[1,1,1,1]}]}', 400),
    "shape-product": (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1099511627775,1099511627775],"data":[1]}]}', 400),
    "data-object": (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":{"a":1}}]}', 400),
    "data-null": (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":null}]}', 400),
    "data-ragged": (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[[1],[2,3]]}]}', 400),
    "data-deep": (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":' + b"[" * 900 + b"1" + b"]" * 900 + b"}]}", 400),
    "data-bool": (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[true,true,true,true]}]}', 400),
    "data-huge-int": (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[' + b"9" * 4000 + b",1,1,1]}]}", 400),
    "digits": (b'{"inputs":[' + b"9" * 10_000 + b"]}", 400),
    "size-float": (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"parameters":{"binary_data_size":16.0}}]}', 400),
    "size-huge": (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"parameters":{"binary_data_size":' + b"9" * 30
                  + b"}}]}", 400),
    "size-negative": (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"parameters":{"binary_data_size":-16}}]}', 400),
    "not-utf8": (b'{"inputs":"\xff\xfe"}', 400),
    "surrogate": (b'{"inputs":[{"name":"\\ud800","datatype":"FP32","shape":[1,4],"data":[1,1,1,1]}]}', 400),
    "outputs-text": (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[1,1,1,1]}],"outputs":"y"}', 400),
    "outputs-number": (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[1,1,1,1]}],"outputs":7}', 400),
    "id-object": (b'{"id":{"a":[1]},"inputs":[]}', 400),
    "empty": (b"", 400), "bom": (b"\xef\xbb\xbf{}", 400), "zero": (b"\0" * 100, 400),
}  # fmt: skip


def test_odd_requests(linear):
    """Odd JSON is refused with a 4xx, an error in JSON that is no echo chamber, and is nobody's fault but the caller's."""
    port, worker = linear
    for name, (body, status) in ODD.items():
        got, answer = ask(port, body)
        assert (name, got) == (name, status), answer
        assert answer["error"] and answer["reason"] and len(answer["error"]) < 1000
    long = json.dumps({"inputs": [{"name": "n" * 1_000_000, "datatype": "d" * 1_000_000, "shape": ["s" * 1_000_000]}]}).encode()
    assert len(ask(port, long)[1]["error"]) < 1000
    healthy(port, worker)


def test_lying_binary_requests(linear):
    """Binary requests whose parts do not add up: header longer or shorter than said, sizes that run over or leave something."""
    port, worker = linear

    def send(header, payload, length=None):
        text = json.dumps(header).encode()
        headers = {"Inference-Header-Content-Length": str(len(text) if length is None else length)}
        return ask(port, text + payload, headers=headers)

    def described(size, shape=(1, 4), name="x"):
        return {"name": name, "datatype": "FP32", "shape": list(shape), "parameters": {"binary_data_size": size}}

    good = {"inputs": [described(16)]}
    assert send(good, X.tobytes())[0] == 200
    for header, payload, length in (
        (good, X.tobytes()[:-1], None), (good, X.tobytes() + b"x", None), (good, X.tobytes(), 3), (good, X.tobytes(), 0),
        (good, X.tobytes(), len(json.dumps(good)) + 1), (good, X.tobytes(), "1e3"), (good, X.tobytes(), "9" * 400),
        ({"inputs": [described(0)]}, b"", None), ({"inputs": [described(16, (2, 4))]}, X.tobytes(), None),
        ({"inputs": [described(17)]}, X.tobytes() + b"x", None), ({"inputs": [described(16, (4,))]}, X.tobytes(), None),
        ({"inputs": [described(16, (1, 4, 1))]}, X.tobytes(), None), ({"inputs": [described(1 << 62)]}, X.tobytes(), None),
    ):  # fmt: skip
        status, answer = send(header, payload, length)
        assert status == 400 and answer["error"], (header, length, answer)
    healthy(port, worker)


@pytest.mark.parametrize(
    "path",
    ["/v2/../../etc/passwd", "/v2/models/../../etc/passwd", "/v2/models/linear/%2e%2e/%2e%2e/etc", "//v2", "/v2/models//infer",
     "http://elsewhere/v2", "/v2/models/linear/versions/1/../1", "*", "/v2/models/linear\x00", "/" + "a" * 10_000],
)  # fmt: skip
def test_paths_that_lead_nowhere(linear, path):
    """No path reaches a file or another host: each is 404 with an error in JSON."""
    port, worker = linear
    reply = raw(port, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode("latin-1"))
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404") and json.loads(body)["error"] and b"root:" not in body
    healthy(port, worker)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n", 431),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"POST /v2 HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        (b"POST /v2 HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST /v2 HTTP/1.1\r\nContent-Length: +5\r\n\r\nhello", 400),
        (b"POST /v2 HTTP/1.1\r\nContent-Length: 0x5\r\n\r\nhello", 400),
        (b"POST /v2 HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\nhello", 400),
        (b"POST /v2 HTTP/1.1\r\nContent-Length : 5\r\n\r\nhello", 400),
        (b"GET /v2 HTTP/1.1\r\n folded: x\r\n\r\n", 400),
        (b"GET /v2 HTTP/9.9\r\n\r\n", 400), (b"\r\n\r\n", 400), (b"GET\r\n\r\n", 400), (b"\xff" * 1000 + b"\r\n\r\n", 400),
        (b"BREW /v2 HTTP/1.1\r\n\r\n", 405), (b"HEAD /v2 HTTP/1.1\r\n\r\n", 405),
    ],
)  # fmt: skip
def test_heads_that_are_wrong(linear, data, status):
    """Wrong heads end in the right status with an error in JSON."""
    port, worker = linear
    head, _, body = raw(port, data).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status}".encode()), head
    assert json.loads(body)["error"]
    healthy(port, worker)


def test_a_body_that_never_comes():
    """A client that claims more than it sends is told 408 at the deadline, and one that goes away costs nothing."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = HttpServer(lambda request: Response(200), refuse, HttpLimits(request_seconds=0.5))
        server.listen([sock])
        port = sock.getsockname()[1]
        for beginning in (b"POST /v2 HTTP/1.1\r\nContent-Length: 9\r\n\r\nshort", b"POST /v2 HTTP/1.1\r\nConte"):
            with socket.create_connection(("127.0.0.1", port), 10) as client:
                client.sendall(beginning)
                head, _, body = b"".join(iter(lambda: client.recv(65536), b"")).partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 408") and json.loads(body)["reason"] == "too-slow"
            raw(port, beginning)
        server.drain(None, 0)


def test_nobody_is_thrown_out_while_being_answered():
    """When all places are taken by requests at work, one more is told 503; those at work get their answers."""
    gate, answers, at_work = threading.Event(), [], threading.Semaphore(0)

    def work(request):
        at_work.release()
        gate.wait(10)
        return Response(200, (b"{}",))

    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = HttpServer(work, refuse, HttpLimits(connections=3))
        server.listen([sock])
        port = sock.getsockname()[1]
        clients = [threading.Thread(target=lambda: answers.append(ask(port, None, "/v2")[0])) for _ in range(3)]
        for each in clients:
            each.start()
            assert at_work.acquire(timeout=10)
        status, answer = ask(port, None, "/v2")
        assert (status, answer["reason"]) == (503, "connections")
        gate.set()
        for each in clients:
            each.join()
        assert answers == [200, 200, 200]
        server.drain(None, 0)


def test_a_bug_is_an_answer_too():
    """An exception nobody thought of is a 500 with an error in JSON, and the connection's thread ends in order."""
    def broken(request):
        raise KeyError("nobody thought of this")

    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = HttpServer(broken, refuse)
        server.listen([sock])
        assert ask(sock.getsockname()[1], None, "/v2") == (500, {"error": "internal error: KeyError", "reason": "internal"})
        server.drain(None, 0)


def test_strings_that_are_none(shop, serving, tcp):
    """Values that are no strings in a BYTES tensor are the caller's mistake, not the model's."""
    make = helper.make_tensor_value_info
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    worker = serving(
        shop.save("names", nodes, [make("x", TensorProto.STRING, ["n"])], [make("y", TensorProto.STRING, ["n"])]), [tcp]
    )
    port = tcp.getsockname()[1]
    for data in ([1], [None], [{"a": 1}], [True], [1.5], [["a"], 2], "a", {"a": 1}, ["\ud800"]):
        body = json.dumps({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": data}]}).encode()
        status, answer = ask(port, body, "/v2/models/names/infer")
        assert (status, answer["reason"]) == (400, "wrong-data"), (data, answer)
    header = b'{"inputs":[{"name":"x","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":%d}}]}'
    for payload in (struct.pack("<I", 5) + b"four", b"\1", struct.pack("<I", 2) + b"\xff\xfe", struct.pack("<I", 1 << 31)):
        text = header % len(payload)
        status, _ = ask(port, text + payload, "/v2/models/names/infer", {"Inference-Header-Content-Length": str(len(text))})
        assert status == 400, payload
    assert worker.collect()["counters"]["errors"] == 0


def test_mutated_requests_are_read_or_refused(shop, hire):
    """Five thousand seeded mutations of sound requests: decoded, or refused by name; nothing else ever comes out."""
    from edgeops_agent.shell.tensors import spec_of

    rng = random.Random(11)
    specs = [spec_of("x", "tensor(float)", ["n", 4]), spec_of("s", "tensor(string)", ["n"]), spec_of("i", "tensor(int8)", [2])]
    inputs = [
        {"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}},
        {"name": "s", "datatype": "BYTES", "shape": [2], "data": ["a", "ü"]},
        {"name": "i", "datatype": "INT8", "shape": [2], "data": [[1], [-128]]},
    ]
    whole = json.dumps({"id": "1", "inputs": inputs, "outputs": [{"name": "x", "parameters": {"binary_data": True}}]}).encode()
    words = [b"null", b"-1", b"1e400", b"[]", b"{}", b'""', b"true", b"NaN", b"99999999999999999999", b'"x"', b",", b"\\u0000"]
    outcomes = set()
    for _ in range(5000):
        body = bytearray(whole + X.tobytes())
        for _ in range(rng.randint(1, 3)):
            at, to = sorted(rng.randrange(len(body)) for _ in range(2))
            body[at : min(to, at + rng.randint(0, 6))] = rng.choice([*words, bytes([rng.randrange(256)]), b""])
        try:
            decode_infer(memoryview(bytes(body)), str(rng.choice([len(whole), len(body), rng.randrange(600)])), specs, specs)
            outcomes.add("read")
        except Misuse as error:
            outcomes.add(error.reason)
    assert {"bad-json", "bad-request", "read"} <= outcomes
