"""The local endpoint of a real agent, asked by the client people use, and by programs that open the model in their own process."""

import numpy as np
import pytest
import tritonclient.http as triton

from edgeops.wire.errors import EdgeopsError, Misuse
from edgeops_agent import Client, Model

from .site import X, until

pytestmark = pytest.mark.real


def test_health_before_and_after_the_first_model(site, device):
    """Without a model the endpoint answers at once: live, not ready; with one, ready. tritonclient understands both."""
    agent = device()
    with triton.InferenceServerClient(f"127.0.0.1:{agent.port}") as client:
        until(client.is_server_live, "the endpoint")
        assert not client.is_server_ready() and not client.is_model_ready("small")
        assert client.get_model_repository_index() == []
        assert agent.ask("GET", "/v2")[1]["name"] == "edgeops-agent"
        status, answer = agent.ask("POST", "/v2/models/small/infer", b"{}")
        assert (status, answer["reason"]) == (503, "no-model")
        site.order(agent.name, "small:1")
        agent.ended("committed-unproven", "small:1")
        assert client.is_server_live() and client.is_server_ready()
        assert client.is_model_ready("small") and client.is_model_ready("small", "1") and not client.is_model_ready("small", "2")
    with pytest.raises(Misuse, match="unknown-model"), Client(str(agent.folder / "run.sock"), "other") as other:
        other.infer({"x": X})


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_infers(device, binary):
    """JSON and binary tensors in both directions give what the model gives in the caller's own process."""
    agent = device(holds="small:1")
    rows = np.random.default_rng(5).normal(size=(7, 16)).astype(np.float32)
    with triton.InferenceServerClient(f"127.0.0.1:{agent.port}") as client, Model.open(agent.folder) as model:
        name, wanted = next(iter(model.infer({"x": rows}).items()))
        tensor = triton.InferInput("x", rows.shape, "FP32")
        tensor.set_data_from_numpy(rows, binary_data=binary)
        reply = client.infer("small", [tensor], outputs=[triton.InferRequestedOutput(name, binary_data=binary)])
        np.testing.assert_allclose(reply.as_numpy(name), wanted, rtol=1e-5, atol=1e-6)
        assert client.get_model_metadata("small")["versions"] == ["1"]
        assert client.get_inference_statistics("small")["model_stats"][0]["inference_count"] == 1
        tensor.set_shape([7, 15])
        with pytest.raises(triton.InferenceServerException):
            client.infer("small", [tensor])


def test_a_program_with_the_model_open(site, device):
    """In a process of its own a program sees committed models only: nothing of a trial or its rollback, the next one on refresh."""
    agent = device(holds="small:1")
    with Model.open(agent.folder) as model:
        site.order(agent.name, "small:2", trial_s=20)
        until(lambda: agent.serves() == "small:2", "the candidate to take the calls")
        assert model.refresh() is False and model.version == 1
        with Model.open(agent.folder) as second:
            assert second.version == 1
        for worker in agent.workers():
            worker.kill()
        agent.ended("rolled-back", "small:1")
        assert model.refresh() is False and model.version == 1
        until(lambda: site.device(agent.name)["counters"].get("leases") == 1, "the lease to be reported")
        site.order(agent.name, "big:1")
        agent.ended("committed-unproven", "big:1")
        model.infer({"x": X})
        until(model.refresh, "the pointer to the committed model")
        assert (model.name, model.version) == ("big", 1)
        model.infer({"x": X})
    assert not list((agent.folder / "leases").iterdir())


def test_no_call_fails_from_the_first_model_to_the_next(site, device):
    """A client that keeps asking over the socket, a connection at a time, gets an answer to every call while models change."""
    agent = device(holds="small:1")
    answers, failures = 0, []
    site.order(agent.name, "small:2")
    while agent.runs() != "small:2":
        try:
            with Client(str(agent.folder / "run.sock"), "small") as client:
                client.infer({"x": X})
            answers += 1
        except EdgeopsError as error:
            failures.append(error)
    assert (failures, answers > 20) == ([], True)
