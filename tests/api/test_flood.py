"""A device that floods, on the real thing: the others are heard meanwhile, and the broker shuts it out."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from edgeops.api.serve import Serving
from edgeops.manager import serve
from edgeops.wire import topics
from edgeops.wire.messages import SlotReport

from .line import PATIENCE_S, Connected, enrol, until

pytestmark = pytest.mark.real


FLOOD = """
import ssl, sys
import paho.mqtt.client as mqtt
folder, port, topic = sys.argv[1:]
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="loud")
client.tls_set(folder + "/ca", folder + "/crt", folder + "/key", tls_version=ssl.PROTOCOL_TLS_CLIENT)
client.connect("localhost", int(port))
client.loop_start()
while True:
    for _ in range(200):
        sent = client.publish(topic, b"x" * 100, 0)
    sent.wait_for_publish(10)
"""


@contextlib.contextmanager
def flood(folder: Path, port: int) -> Iterator[None]:
    """Another process publishes as fast as it can."""
    words = [sys.executable, "-c", FLOOD, str(folder), str(port), topics.up("loud", "state")]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def test_a_flood_neither_silences_others_nor_goes_on(
    serving: Serving, http: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one device floods, another's reports arrive; the flooder is shut out, which the audit log and health say."""
    monkeypatch.setattr(serve, "SPAN_S", 2.0)
    monkeypatch.setattr(serve, "MOST_IN_SPAN", 1_000)
    enrol(http, tmp_path / "loud", "loud")
    quiet = Connected(enrol(http, tmp_path / "quiet", "quiet"), tmp_path / "quiet", serving.running.broker.port)
    try:
        with flood(tmp_path / "loud", serving.running.broker.port):
            quiet.send("presence", quiet.device.presence())
            until(http, "/devices/quiet", "presence", "online")
            until(http, "/health/details", "shut_out", ["loud"])
        quiet.send("state", quiet.device.state({"main": SlotReport("idle", "digits", 3, "f" * 64)}))
        until(http, "/devices/quiet", "slots", {"main": "digits:3"})
    finally:
        quiet.close()
    (entry,) = [entry for entry in http.get("/audit").json()["audit"] if entry["action"] == "device-flood"]
    assert entry["subject"] == "loud"
    assert http.get("/audit").json()["intact"] is True


def test_a_device_shut_out_is_let_in_again() -> None:
    """After its time a name is let go; names that stay loud stay out, and nothing is told twice."""
    quarantine = serve.Quarantine()
    assert quarantine.look(["a", ""], 0.0) and quarantine.names == {"a"}
    assert not quarantine.look([], 599.0)
    assert quarantine.look([], 600.0) and quarantine.names == frozenset()
