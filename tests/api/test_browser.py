"""A browser's way in, the whole of it on both brokers: challenge, signature, secure WebSocket, and out again when it is revoked."""

import queue
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as mqtt
import pytest
from manager_house import FLEET, FakeDevice, new_manager

from edgeops.api.serve import Serving
from edgeops.broker.reach import claim_port
from edgeops.manager.setup import Setup
from edgeops.store import rows
from edgeops.store.tables import credentials
from edgeops.wire import topics
from edgeops.wire.envelope import seal
from edgeops.wire.messages import Presence

from .line import PATIENCE_S, enrol, until

pytestmark = pytest.mark.real
JSON = {"content-type": "application/json"}


@pytest.fixture
def made(kind: str, tmp_path: Path) -> Setup:
    """A new manager that listens for browsers, with each broker in turn."""
    return new_manager(tmp_path / "m", int(time.time()), broker=kind, wss_port=claim_port("127.0.0.1", 0))


def ask(http: httpx.Client, device: FakeDevice, **other: Any) -> httpx.Response:
    """Ask for a credential as a device does."""
    nonce = http.post("/credential/challenge", json={"device": device.id}).raise_for_status().json()["nonce"]
    payload = {"fleet": FLEET, "device": device.id, "incarnation": 1, "nonce": nonce} | other
    return http.post("/credential", content=seal("credential", payload, [device.identity]), headers=JSON)


class Page:
    """What runs in a browser: MQTT over secure WebSocket with a credential."""

    def __init__(self, credential: dict[str, Any], ca: Path, will: bytes = b"") -> None:
        self.answers, self.gone, self.inbox = (queue.Queue[Any]() for _ in range(3))
        name, url = credential["username"], httpx.URL(credential["url"])
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=name, transport="websockets", reconnect_on_failure=False
        )
        self.client.tls_set(str(ca), tls_version=ssl.PROTOCOL_TLS_CLIENT)
        self.client.username_pw_set(name, credential["password"])
        if will:
            self.client.will_set(topics.up(name, "presence"), will, 1)
        self.client.on_connect = lambda _c, _u, _f, reason, _p: self.answers.put(reason.value)
        self.client.on_disconnect = lambda *_args: self.gone.put(time.monotonic())
        self.client.on_message = lambda _c, _u, message: self.inbox.put((message.topic, message.payload))
        self.client.connect(url.host, url.port or 0)
        self.client.loop_start()

    def answer(self) -> int:
        """The CONNACK's code."""
        return int(self.answers.get(timeout=PATIENCE_S))

    def close(self) -> None:
        """Leave."""
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def pages() -> Iterator[list[Page]]:
    """Pages that are closed with the test."""
    found: list[Page] = []
    yield found
    for page in found:
        page.close()


def presence(device: FakeDevice, kind: str) -> bytes:
    """What a page says of itself."""
    said = Presence(FLEET, device.id, 1, device.boot, kind, device.nonce if kind == "birth" else "", {"class": "wasm"}, {})
    return seal("presence", said.payload(), [device.identity])


def test_a_browser_is_a_device_like_any_other(
    made: Setup, serving: Serving, http: httpx.Client, tmp_path: Path, pages: list[Page], kind: str, tell: Any
) -> None:
    """It gets in, is seen, is answered, leaves its will; a revocation ends session, password and hope of another."""
    device = enrol(http, tmp_path / "dev", "phone-1")
    http.headers.pop("authorization")
    credential = ask(http, device).raise_for_status().json()
    http.headers["authorization"] = f"Bearer {made.admin_token}"
    assert credential["url"] == f"wss://localhost:{serving.running.hub.settings.wss_port}"
    page = Page(credential, made.ca, presence(device, "gone"))
    pages.append(page)
    assert page.answer() == 0
    page.client.subscribe(topics.downs_of("phone-1"), 1)
    page.client.publish(topics.up("phone-1", "presence"), presence(device, "birth"), 1).wait_for_publish(PATIENCE_S)
    until(http, "/devices/phone-1", "presence", "online")
    assert page.inbox.get(timeout=PATIENCE_S)[0].startswith(topics.downs_of("phone-1")[:-1])
    page.client.socket().close()  # type: ignore[union-attr]
    until(http, "/devices/phone-1", "presence", "unknown")

    page = Page(credential, made.ca)
    pages.append(page)
    assert page.answer() == 0
    began = time.monotonic()
    answer = http.post("/devices/phone-1/revoke").raise_for_status().json()
    assert answer["silenced"] is True
    gone = page.gone.get(timeout=5.0) - began
    pages.append(Page(credential, made.ca))
    assert pages[-1].answer() != 0
    assert ask(http, device).json()["reason"] == "device-revoked"
    tell(f"revocation of a browser on {kind}: session gone after {gone * 1000:.0f} ms, shown after {answer['silenced_ms']} ms")


def test_a_credential_ends_with_its_hour(
    made: Setup, serving: Serving, http: httpx.Client, tmp_path: Path, pages: list[Page]
) -> None:
    """When it lapses, its session ends by itself; a new one lets in again."""
    device = enrol(http, tmp_path / "dev", "phone-1")
    page = Page(ask(http, device).raise_for_status().json(), made.ca)
    pages.append(page)
    assert page.answer() == 0
    with serving.running.hub.store.write() as tx:
        rows.change(tx, credentials, {"device": "phone-1"}, expires=int(time.time()) - 1)
    serving.running.silencer.tell()
    assert page.gone.get(timeout=5.0)
    again = Page(ask(http, device).raise_for_status().json(), made.ca)
    pages.append(again)
    assert again.answer() == 0


def test_what_the_door_of_browsers_refuses(made: Setup, serving: Serving, http: httpx.Client, tmp_path: Path) -> None:
    """Replays, other incarnations, other keys, other forms: each has its reason, and none names an origin to share with."""
    device = enrol(http, tmp_path / "dev", "phone-1")
    nonce = http.post("/credential/challenge", json={"device": "phone-1"}).json()["nonce"]
    payload = {"fleet": FLEET, "device": "phone-1", "incarnation": 1, "nonce": nonce}
    sealed = seal("credential", payload, [device.identity])
    first = http.post("/credential", content=sealed, headers=JSON | {"origin": "https://evil.example"})
    assert first.status_code == 201 and not [name for name in first.headers if name.startswith("access-control")]
    refused = {
        "nonce-spent": http.post("/credential", content=sealed, headers=JSON),
        "incarnation": ask(http, device, incarnation=2),
        "bad-nonce": ask(http, device, nonce="0." + "0" * 32 + "." + "A" * 43),
        "credential-refused": ask(http, FakeDevice("phone-1")),
        "not-json": http.post("/credential", content=sealed),
        "wrong-type": http.post("/credential", content=seal("renew", payload, [device.identity]), headers=JSON),
        "too-large": http.post("/credential", content=b"{" + b" " * 70_000, headers=JSON),
        "device-id-invalid": http.post("/credential/challenge", json={"device": "../x"}),
    }
    assert {name: answer.json()["reason"] for name, answer in refused.items()} == {name: name for name in refused}
    assert all(400 <= answer.status_code < 500 for answer in refused.values())
