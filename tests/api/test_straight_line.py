"""One device against the real thing: HTTPS, a real broker, mTLS, a signed release, frames, outcomes."""

from pathlib import Path

import httpx
import pytest

from edgeops.api.serve import Serving
from edgeops.manager.setup import Setup
from edgeops.wire import topics
from edgeops.wire.keys import sha256
from edgeops.wire.messages import SlotReport

from .line import Connected, enrol, fetch, publish, until, wished

pytestmark = pytest.mark.real


def test_one_device_from_token_to_committed(serving: Serving, http: httpx.Client, made: Setup, tmp_path: Path) -> None:
    """A device enrols, gets a verifiable desired document and all its bytes, reports, and the rollout finishes."""
    device = enrol(http, tmp_path / "d", "pi-1")
    digest = publish(http, made.folder, 1)
    link = Connected(device, tmp_path / "d", serving.running.broker.port)
    try:
        link.send("presence", device.presence())
        topic, payload = link.next()
        assert topic == topics.down("pi-1", "doc")
        assert "time" in device.read(payload, 0)[1]
        assert until(http, "/devices/pi-1", "presence", "online")["device_class"] == "x86-vnni"
        order = {"model": "digits", "version": 1, "to": "site=berlin", "waves": "100%", "policy": {"dwell_s": 0}}
        rollout = http.post("/rollouts", json=order).raise_for_status().json()
        desired, documents = wished(link)
        wish = desired.slots["main"]
        assert (wish.action, wish.release, wish.rollout) == ("run", digest, rollout["id"])
        objects = fetch(link, documents, wish.stream)
        assert all(sha256(data) == name for name, data in objects.items()) and len(objects) == 4
        busy = SlotReport("trial", rollout=wish.rollout, target=digest)
        link.send("state", device.state({"main": busy}, desired.counter))
        done = SlotReport("idle", "digits", 1, digest, wish.variant, wish.rollout, "committed", target=digest)
        counters = {"refused_desired": 2, "refused_desired.replay": 2}
        link.send("state", device.state({"main": done}, desired.counter, counters=counters))
        shown = until(http, f"/rollouts/{rollout['id']}", "status", "finished")
        assert shown["devices"][0]["verdict"] == "committed"  # type: ignore[index]
        sent = shown["delivery"][0]  # type: ignore[index]
        assert (sent["published"], sent["repaired"]) == (0, sent["frames"])
        row = http.get("/status").json()["devices"][0]
        assert (row["slots"], row["refused"]) == ({"main": "digits:1"}, 2)
        assert http.get("/health").json()["status"] == "ok"
    finally:
        link.close()


def test_a_device_revoked_before_it_ever_enrolled_is_let_in_with_a_new_token(
    serving: Serving, http: httpx.Client, tmp_path: Path
) -> None:
    """Revoked by mistake, then given a new token: its first enrolment makes the broker forget the revocation."""
    http.post("/devices", json={"id": "pi-1"}).raise_for_status()
    http.post("/devices/pi-1/revoke").raise_for_status()
    device = enrol(http, tmp_path / "d", "pi-1")
    link = Connected(device, tmp_path / "d", serving.running.broker.port)
    try:
        link.send("presence", device.presence())
        until(http, "/devices/pi-1", "presence", "online")
    finally:
        link.close()


def test_everything_health_says_is_documented(http: httpx.Client) -> None:
    """Each member of the answer, and of what it says of the broker, stands in docs/api.md."""
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text("utf-8").split("## GET /health/details\n")[1].split("\n## ")[0]
    said = http.get("/health/details").json()
    assert [name for name in [*said, *said["broker"]] if name not in page] == []
