"""Two people start a rollout over real HTTPS: one proposes, another approves the digest, and only then a device hears of it."""

import ssl
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from edgeops.api.serve import Serving
from edgeops.manager.setup import Setup
from edgeops.wire import canonical
from edgeops.wire.keys import sha256

from . import line

API = "/api/v1"
ORDER = {"model": "digits", "version": 1, "to": "all", "waves": "100%", "policy": {"dwell_s": 0}, "approvals": 2}


def operator(http: httpx.Client, made: Setup, name: str, role: str = "operator") -> httpx.Client:
    """A client of another person."""
    token = http.post("/tokens", json={"name": name, "role": role}).raise_for_status().json()["token"]
    context = ssl.create_default_context(cafile=made.ca)
    return httpx.Client(base_url=http.base_url, verify=context, headers={"authorization": f"Bearer {token}"}, trust_env=False)


@pytest.mark.real
def test_a_second_person_over_https(http: httpx.Client, made: Setup, serving: Serving, tmp_path: Path) -> None:
    """Anna proposes; neither she nor a viewer nor a wrong digest starts it; Bob does, and the device is told."""
    device = line.enrol(http, tmp_path / "dev", "dev-1")
    link = line.Connected(device, tmp_path / "dev", serving.running.broker.port)
    release = line.publish(http, made.folder, 1)
    with operator(http, made, "anna") as anna, operator(http, made, "bob") as bob, operator(http, made, "eve", "viewer") as eve:
        answer = anna.post("/rollouts", json=ORDER)
        assert (answer.status_code, answer.json()["status"]) == (201, "proposed")
        path, approval = f"/rollouts/{answer.json()['id']}", answer.json()["approval"]
        assert approval["digest"] == sha256(canonical.encode(approval["plan"]))
        tried = [
            (anna, approval["digest"], 409, "approved-already"), (eve, approval["digest"], 403, "role"),
            (bob, "0" * 64, 409, "plan-mismatch"), (bob, "x", 422, "validation"),
        ]  # fmt: skip
        for who, digest, status, reason in tried:
            answer = who.post(f"{path}/approve", json={"digest": digest})
            assert (answer.status_code, answer.json()["reason"]) == (status, reason)
            assert bob.get(path).json()["status"] == "proposed"
        link.send("presence", device.presence())
        assert bob.post(f"{path}/approve", json={"digest": approval["digest"]}).raise_for_status().json()["status"] == "running"
        desired, _ = line.wished(link)
        assert desired.slots["main"].release == release
        said = [(one["who"], one["action"]) for one in http.get("/audit").json()["audit"] if one["subject"] == path.split("/")[2]]
        assert said[:2] == [("anna", "rollout-propose"), ("bob", "rollout-approve")]
    link.close()


def test_a_rejected_proposal(client: TestClient) -> None:
    """Unknown rollouts are unknown; what was never proposed cannot be approved or rejected."""
    for verb, body in (("approve", {"digest": "0" * 64}), ("reject", {})):
        answer = client.post(f"{API}/rollouts/r-none/{verb}", json=body)
        assert (answer.status_code, answer.json()["reason"]) == (404, "unknown-rollout")
