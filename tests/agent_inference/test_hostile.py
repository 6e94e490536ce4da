"""The supervisor outlives models that hang, crash, lie or eat memory, and names what happened."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import psutil
import pytest
from onnx import TensorProto, helper

from edgeops.wire.errors import Unfit, Unreachable
from edgeops.wire.golden import GoldenCase
from edgeops_agent.client import Client
from edgeops_agent.shell.runnable import Limits


def test_a_good_model_passes(shop, hire):
    """A model that meets its golden vectors is ok and has measured latencies."""
    outcome = hire(shop.linear()[0]).check()
    assert outcome.ok and 0 < outcome.latency_us_p50 <= outcome.latency_us_p99, outcome


def test_weights_inside_the_file(shop, hire):
    """A model without external data loads as well."""
    assert hire(shop.linear(external=False)[0]).check().ok


def test_wrong_answers(shop, hire):
    """A model that misses its golden vectors is refused, and its process is gone."""
    worker = hire(shop.linear(wrong=0.1)[0])
    outcome = worker.check()
    assert (outcome.ok, outcome.reason) == (False, "golden-mismatch") and not worker.alive


def test_not_finite(shop, hire):
    """A graph that answers NaN is refused by name."""
    assert hire(shop.nan()).check().reason == "non-finite"


def test_endless_loop(shop, hire):
    """A loop of 2^62 turns is stopped at the call limit."""
    outcome = hire(shop.endless(limits=Limits(256 << 20, 5000, 300))).check()
    assert outcome.reason == "call-timeout", outcome


def test_glutton(shop, hire):
    """A model that wants 64 GiB is refused for memory within its limit."""
    outcome = hire(shop.glutton()).check()
    assert outcome.reason == "memory", outcome


def test_memory_limit_is_relative(shop, hire):
    """The same allocation passes with a limit above it and fails with one below it."""
    runnable = _hungry(shop, 400 << 20)
    assert hire(runnable).check().reason == "memory"
    assert hire(replace(runnable, limits=Limits(900 << 20, 5000, 5000))).check().ok


def _hungry(shop, size):
    nodes = [helper.make_node("Expand", ["x", "shape"], ["big"]), helper.make_node("ReduceSum", ["big"], ["y"], keepdims=0)]
    make = helper.make_tensor_value_info
    return shop.save("hungry", nodes, [make("x", TensorProto.FLOAT, [1])], [make("y", TensorProto.FLOAT, [])],
                     {"shape": np.array([size // 4])}, external=False)


def test_load_deadline(shop, hire):
    """A model that is not loaded in time is given up as load-timeout and its process is killed."""
    fifo = shop.folder / "never.onnx"
    os.mkfifo(fifo)  # opening it blocks for ever: a disk that hangs
    worker = hire(replace(shop.linear()[0], skeleton=fifo, limits=Limits(256 << 20, 300, 300)))
    assert worker.check().reason == "load-timeout" and not worker.alive


@pytest.mark.parametrize("damage", ["garbage", "missing-blob", "short-blob", "golden", "no-file"])
def test_damaged_files(shop, hire, damage):
    """Damaged files are refused with a reason, not a crash."""
    runnable, _ = shop.linear()
    blob = next(shop.blobs.iterdir())
    if damage == "garbage":
        runnable.skeleton.write_bytes(os.urandom(1000))
    elif damage == "missing-blob":
        blob.unlink()
    elif damage == "short-blob":
        blob.write_bytes(blob.read_bytes()[:8])
    elif damage == "golden":
        runnable.golden.write_bytes(b"\x00nonsense")
    else:
        runnable.skeleton.unlink()
    assert hire(runnable).check().reason == ("golden-malformed" if damage == "golden" else "load-failed")


def test_option_that_is_not_allowed(shop, hire):
    """A session option outside the allow-list is refused."""
    options = {"session.use_ort_model_bytes_for_initializers": "1"}
    assert hire(shop.linear(session_options=options)[0]).check().reason == "session-option"


def test_allowed_option(shop, hire):
    """An allow-listed session option is taken."""
    assert hire(shop.linear(session_options={"session.x64quantprecision": "1"})[0]).check().ok


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_killed_from_outside(shop, serving, tcp, number, wait_for):
    """A serving worker that dies by a signal is noticed, named, and asking it says so."""
    worker = serving(shop.linear()[0], [tcp])
    os.kill(worker.pid, number)
    wait_for(lambda: not worker.alive)
    assert worker.reason == f"crashed:{number.name}"
    with pytest.raises(Unfit, match="crashed"):
        worker.collect()


def test_end_is_reported(shop, hire, wait_for):
    """The supervisor is called back once with the reason."""
    reasons = []
    worker = hire(shop.linear()[0], on_end=reasons.append)
    assert worker.check().ok
    os.kill(worker.pid, signal.SIGSEGV)
    wait_for(lambda: reasons)
    assert reasons == ["crashed:SIGSEGV"]


def test_killed_while_loading(shop, hire, wait_for):
    """A crash in the middle of a check is its outcome."""
    worker = hire(shop.endless(limits=Limits(256 << 20, 5000, 20_000)))
    threading.Thread(target=_signal_in_the_loop, args=(worker.pid, signal.SIGSEGV, wait_for)).start()
    assert worker.check().reason == "crashed:SIGSEGV"


def test_frozen_worker(shop, hire, wait_for):
    """A worker that is stopped from outside is killed at the deadline of the call."""
    worker = hire(shop.endless(limits=Limits(256 << 20, 5000, 1500)))
    threading.Thread(target=_signal_in_the_loop, args=(worker.pid, signal.SIGSTOP, wait_for)).start()
    assert worker.check().reason == "call-timeout" and not worker.alive


def _signal_in_the_loop(pid, number, wait_for):
    """Send a signal once the process has computed for longer than loading takes."""
    process = psutil.Process(pid)
    wait_for(lambda: process.cpu_times().user > 0.8)
    os.kill(pid, number)


def test_hanging_call_while_serving(shop, serving, unix):
    """A request that never ends gets an error at the call limit, is counted, and the next request is served."""
    golden = [GoldenCase({"x": np.float32([-1])}, {"y": np.sin(np.float32([-1]))})]
    sock, path = unix
    worker = serving(shop.endless(golden=golden, limits=Limits(256 << 20, 5000, 300)), [sock])
    with Client(path, "endless") as client:
        with pytest.raises(Exception, match="call-timeout"):
            client.infer({"x": np.float32([1])})
        assert np.isclose(client.infer({"x": np.float32([-1])})["y"], np.sin(-1))
    assert worker.collect()["counters"]["errors_by_reason"] == {"call-timeout": 1}


def test_too_many_calls_at_once_are_not_the_models_fault(shop, serving, tcp):
    """A caller who waited for others until its deadline is told 503; that is no error of the model."""
    golden = [GoldenCase({"x": np.float32([-1])}, {"y": np.sin(np.float32([-1]))})]
    worker = serving(shop.endless(golden=golden, limits=Limits(256 << 20, 5000, 1500)), [tcp])
    address = f"127.0.0.1:{tcp.getsockname()[1]}"
    told = []

    def call():
        with Client(address, "endless", timeout=30) as client:
            try:
                client.infer({"x": np.float32([1])})
            except Unfit as error:
                told.append(error.reason)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    counters = worker.collect()["counters"]
    assert counters["errors_by_reason"] == {"call-timeout": told.count("call-timeout")}
    assert counters["busy"] == told.count("busy") > 0


def test_call_that_cannot_be_stopped(shop, serving, unix, wait_for):
    """A worker stuck in one operator that heeds no request to stop ends itself, and the reason is the call's deadline."""
    sock, path = unix
    worker = serving(shop.stubborn(limits=Limits(2 << 30, 5000, 1000)), [sock])
    with Client(path, "stubborn") as client, pytest.raises(Unreachable):
        client.infer({"x": np.ones(6000, np.float32)})
    wait_for(lambda: not worker.alive)
    assert worker.reason == "call-timeout"


def test_worker_dies_with_the_supervisor(shop, tmp_path, wait_for):
    """When the supervisor is killed its worker goes too."""
    runnable, _ = shop.linear()
    (tmp_path / "r.json").write_text(runnable.to_json())
    script = (
        "import sys,time,pathlib\nfrom edgeops_agent.shell.workers import Worker\n"
        "from edgeops_agent.shell.runnable import Runnable\nw=Worker()\n"
        "w.start(Runnable.from_json(pathlib.Path(sys.argv[1]).read_text()))\n"
        "assert w.check().ok\nassert 'onnxruntime' not in sys.modules\nprint(w.pid,flush=True)\ntime.sleep(60)\n"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "r.json")], stdout=subprocess.PIPE)
    pid = int(supervisor.stdout.readline())
    os.kill(pid, 0)
    supervisor.kill()
    supervisor.wait()
    supervisor.stdout.close()
    wait_for(lambda: _gone(pid))


def _gone(pid):
    """Whether the process is no more (a zombie that nobody reaps is dead too)."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


RAVING = """
import os, socket, struct, sys
import cbor2
control = socket.socket(fileno=int(sys.argv[sys.argv.index("--control") + 1]))
def say(data): control.sendall(struct.pack(">I", len(data)) + data)
def put(value): say(cbor2.dumps(value))
put({"phase": "ready"})
control.recv(65536)
how = os.environ["RAVING"]
if how == "garbage": say(b"\\xff" * 100)
if how == "deep": say(b"\\x81" * 5000)
if how == "endless": control.sendall(struct.pack(">I", 1 << 31) + b"x" * 100)
if how == "no-outcome": put({"reply": 7})
if how == "odd-outcome": put({"reply": {"ok": "yes", "nonsense": 1}})
if how == "untrue": put({"reply": {"ok": 1, "reason": ["x"], "latency_us_p50": "many"}})
if how == "flood":
    while True: put({"phase": "call", "padding": b"x" * 100_000})
control.recv(65536)
control.recv(65536)
"""


@pytest.mark.parametrize("how", ["garbage", "deep", "endless", "no-outcome", "odd-outcome", "untrue", "flood"])
def test_a_worker_that_raves(shop, hire, monkeypatch, how, wait_for):
    """Whatever a worker that a model has taken over says to the supervisor: it is ended by name, the supervisor stays small."""
    real = subprocess.Popen

    def popen(command, **more):
        more["env"]["RAVING"] = how
        return real([sys.executable, "-c", RAVING, *command[4:]], **more)

    monkeypatch.setattr("edgeops_agent.shell.process.subprocess.Popen", popen)
    reasons, before = [], psutil.Process().memory_info().rss
    worker = hire(replace(shop.linear()[0], limits=Limits(256 << 20, 2000, 500)), on_end=reasons.append)
    outcome = worker.check()
    assert not outcome.ok and isinstance(outcome.reason, str) and outcome.reason
    wait_for(lambda: reasons and not worker.alive)
    assert len(reasons) == 1
    assert psutil.Process().memory_info().rss - before < 50 << 20
