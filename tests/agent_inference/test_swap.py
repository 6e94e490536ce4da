"""Hot swap, draining and the in-process API."""

import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

from edgeops.sketch.build import build_reference
from edgeops.sketch.window import SketchWindow
from edgeops.wire.errors import EdgeopsError, Misuse, Unfit
from edgeops_agent import Client, Model
from edgeops_agent.shell.leases import held
from edgeops_agent.shell.runnable import Runnable
from edgeops_agent.shell.workers import Worker

X = np.random.default_rng(5).normal(size=(1, 4)).astype(np.float32)


def test_swap_without_a_failed_request(shop, serving, tcp, unix):
    """While the model is swapped four times under load no request fails and every answer is one model's exactly."""
    runnable, first = shop.linear(seed=0, version=1)
    sockets = [tcp, unix[0]]
    old = serving(runnable, sockets)
    weights = [first]
    answers, failures, over = [], [], threading.Event()

    def load(address):
        with Client(address, "linear") as client:
            while not over.is_set():
                try:
                    answers.append(client.infer({"x": X})["y"])
                except EdgeopsError as error:
                    failures.append(error)

    addresses = [f"127.0.0.1:{tcp.getsockname()[1]}", unix[1]]
    callers = [threading.Thread(target=load, args=(address,)) for address in addresses]
    for caller in callers:
        caller.start()
    for version in range(2, 6):
        runnable, weight = shop.linear(seed=version, version=version)
        weights.append(weight)
        new = serving(runnable, sockets)
        assert old.drain(new) == 0
        old.stop()
        old = new
    over.set()
    for caller in callers:
        caller.join()
    assert failures == [] and len(answers) > 100
    expected = np.stack([X @ weight for weight in weights])
    nearest = np.abs(np.stack(answers)[:, None] - expected[None]).max(axis=(2, 3)).min(axis=1)
    assert nearest.max() < 1e-5 and np.abs(answers[-1] - expected[-1]).max() < 1e-5


def test_idle_connection_is_passed_over(shop, serving, unix):
    """An idle keep-alive connection opened before the swap is answered by the new version, without a reconnect."""
    old = serving(shop.linear()[0], [unix[0]])
    with Client(unix[1], "linear") as client:
        client.infer({"x": X})
        connection = client._sock
        runnable, weight = shop.linear(seed=9, version=2)
        new = serving(runnable, [unix[0]])
        assert old.drain(new) == 0
        old.stop()
        np.testing.assert_allclose(client.infer({"x": X})["y"], X @ weight, rtol=1e-5, atol=1e-6)
        assert client._sock is connection


def test_drain_without_successor(shop, serving, unix):
    """Without a successor the last request is answered with Connection: close and idle connections end."""
    worker = serving(shop.linear()[0], [unix[0]])
    with Client(unix[1], "linear", timeout=0.5) as client:
        client.infer({"x": X})
        assert worker.drain(seconds=0.2) == 0
        with pytest.raises(EdgeopsError, match="no-answer"):
            client.infer({"x": X})
    worker.stop()
    assert not worker.alive and worker.reason == "stopped"


def test_a_connection_closed_while_idle_is_made_anew(shop, serving, unix, tmp_path):
    """A client that paused longer than the server keeps connections, or whose agent restarted, does not notice."""
    runnable, weight = shop.linear()
    old = serving(runnable, [unix[0]])
    with Client(unix[1], "linear") as client:
        client.infer({"x": X})
        old.stop()
        serving(runnable, [unix[0]])
        np.testing.assert_allclose(client.infer({"x": X})["y"], X @ weight, rtol=1e-5, atol=1e-6)


def test_probe_windows_with_a_reference(shop, serving, unix):
    """With a reference profile the window carries the counts of every row of every call."""
    runnable, weight = shop.linear()
    rows = np.random.default_rng(2).normal(size=(400, 4)).astype(np.float32)
    path = shop.folder / "reference"
    path.write_bytes(build_reference(rows, rows @ weight, seed=1).to_bytes())
    worker = serving(replace(runnable, reference=path), [unix[0]])
    with Client(unix[1], "linear") as client:
        for at in range(0, 400, 4):
            client.infer({"x": rows[at : at + 4]})
    window = SketchWindow.from_bytes(worker.collect()["window"])
    assert (window.tally.n, window.tally.invalid, window.tally.dropped) == (400, 0, 0)
    assert window.tally.probes.sum() > 0 and worker.collect()["window"] is None


def test_misuse_of_a_worker(shop, hire):
    """A worker runs one model once, and answers nothing before it is started."""
    with pytest.raises(Unfit, match="not-started"):
        Worker().collect()
    worker = hire(shop.linear()[0])
    with pytest.raises(Misuse, match="worker-used"):
        worker.start(shop.linear()[0])


def test_runnable_round_trip(shop):
    """A runnable survives its JSON, and nonsense is refused by name."""
    runnable, _ = shop.linear()
    assert Runnable.from_json(runnable.to_json()) == runnable
    for text in ("", "{}", "[]", '{"slot":1}'):
        with pytest.raises(Misuse, match="runnable-malformed"):
            Runnable.from_json(text)


def test_model_in_process(shop, activate):
    """Model opens the committed model, answers, holds a lease while open, and changes on refresh."""
    runnable, weight = shop.linear()
    state = activate(runnable)
    with Model.open(state) as model:
        np.testing.assert_allclose(model.infer({"x": X})["y"], X @ weight, rtol=1e-5, atol=1e-6)
        assert [(lease["pid"], lease["digest"]) for lease in held(state)] == [(os.getpid(), runnable.digest)]
        assert model.refresh() is False
        newer, weight = shop.linear(seed=4, version=2)
        activate(newer)
        assert model.refresh() is True and model.version == 2
        np.testing.assert_allclose(model.infer({"x": X})["y"], X @ weight, rtol=1e-5, atol=1e-6)
        assert [lease["digest"] for lease in held(state)] == [newer.digest]
        assert model.counters()["calls"] == 1
    assert held(state) == []


def test_leases_of_one_process(shop, activate):
    """Two open models of a process are two leases, each given back with its model."""
    state = activate(shop.linear()[0])
    with Model.open(state):
        with Model.open(state):
            assert len(held(state)) == 2
        assert len(held(state)) == 1
    assert not list((state / "leases").iterdir())


HOLDER = """
import os, sys, time
from edgeops_agent import Model
model = Model.open(sys.argv[1])
if sys.argv[2] == "fork" and os.fork():
    os._exit(0)
print(model.version, flush=True)
sys.stdin.read()
os._exit(0)
"""


@pytest.mark.parametrize("how", ["kill", "fork"])
def test_leases_of_dead_programs_are_not_counted(shop, activate, how, wait_for):
    """A program killed without warning leaves nothing that counts; a forked child keeps its parent's lease as long as it lives."""
    state = activate(shop.linear()[0])
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(state), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "1\n"
    assert len(held(state)) == 1
    if how == "kill":
        holder.kill()
    else:
        holder.stdin.close()
    holder.wait(10)
    wait_for(lambda: held(state) == [])
    assert not list((state / "leases").iterdir())
    holder.stdout.close()


def test_leases_block_nothing(shop, activate):
    """Rubbish among the leases, or no place to write one, keeps no model from being opened and is not counted."""
    state = activate(shop.linear()[0])
    (state / "leases").mkdir()
    for name in ("1.json", "x.json"):
        (state / "leases" / name).write_bytes(b"\xff{not json")
    with Model.open(state):
        assert len(held(state)) == 1
    shutil.rmtree(state / "leases")
    (state / "leases").write_text("not a folder")
    with Model.open(state) as model:
        assert model.infer({"x": X})["y"].shape == (1, 3)
        assert held(state) == []


def test_files_removed_under_an_open_model(shop, activate):
    """A model that is open goes on serving when the agent sweeps its files away."""
    runnable, weight = shop.linear()
    with Model.open(activate(runnable)) as model:
        shutil.rmtree(shop.folder)
        for rows in (1, 3):
            x = np.ones((rows, 4), np.float32)
            np.testing.assert_allclose(model.infer({"x": x})["y"], x @ weight, rtol=1e-5, atol=1e-6)


def test_model_outputs_are_the_callers(shop, activate):
    """Results of an earlier call do not change when buffers are reused, for changing batch sizes too."""
    runnable, weight = shop.linear()
    rows = np.random.default_rng(8).normal(size=(20, 4)).astype(np.float32)
    with Model.open(activate(runnable)) as model:
        results = [(n, model.infer({"x": rows[:n]})["y"]) for n in (1, 2, 3, 5, 7, 11, 1, 20, 2)]
        for n, result in results:
            np.testing.assert_allclose(result, rows[:n] @ weight, rtol=1e-5, atol=1e-6)
        for bad in ({}, {"x": X, "z": X}, {"x": X.astype(np.float64)}, {"x": X[0]}):
            with pytest.raises(Misuse):
                model.infer(bad)
        assert model.infer({"x": rows[:0]})["y"].shape == (0, 3)


def test_model_without_an_active_slot(tmp_path):
    """An empty state folder is the caller's mistake and says so."""
    with pytest.raises(Misuse, match="no-active-model"):
        Model.open(tmp_path)


@pytest.mark.parametrize("module", ["edgeops_agent", "edgeops_agent.shell.workers"])
def test_imports_are_cheap(module):
    """Neither the package nor the supervisor's side imports onnxruntime; the package not even numpy."""
    code = f"import sys, {module}; print(int('onnxruntime' in sys.modules), int('numpy' in sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert printed[0] == "0" and (module != "edgeops_agent" or printed[1] == "0")
