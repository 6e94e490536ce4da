"""A fake device on the real thing: HTTPS, a real broker, mTLS, a signed release, frames."""

import queue
import ssl
import time
from pathlib import Path

import httpx
import paho.mqtt.client as mqtt
from manager_house import FakeDevice, make_release, release_signer

from edgeops.parcel.assembly import Progress, offsets, place
from edgeops.parcel.stream import StreamList
from edgeops.wire import canonical, envelope, topics
from edgeops.wire.desired import Desired
from edgeops.wire.fields import Fields
from edgeops.wire.messages import Want
from edgeops.wire.token import Token
from edgeops.wire.trust import accept_site, pin_root

PATIENCE_S = 15.0
JSON = {"content-type": "application/json"}


class Connected:
    """A fake device on the broker, with what came to it."""

    def __init__(self, device: FakeDevice, folder: Path, port: int) -> None:
        self.device, self.inbox = device, queue.Queue[tuple[str, bytes]]()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=device.id)
        self.client.tls_set(str(folder / "ca"), str(folder / "crt"), str(folder / "key"), tls_version=ssl.PROTOCOL_TLS_CLIENT)
        self.client.on_message = lambda _c, _u, message: self.inbox.put((message.topic, message.payload))
        up = queue.Queue[int]()
        self.client.on_subscribe = lambda *_args: up.put(1)
        self.client.connect("localhost", port)
        self.client.loop_start()
        self.client.subscribe([(topics.downs_of(device.id), 1), (topics.PREFIX + "/b/all/#", 0)])
        up.get(timeout=PATIENCE_S)

    def send(self, noun: str, payload: bytes) -> None:
        """Publish as the device."""
        self.client.publish(topics.up(self.device.id, noun), payload, 1).wait_for_publish(PATIENCE_S)

    def next(self) -> tuple[str, bytes]:
        """The next message."""
        return self.inbox.get(timeout=PATIENCE_S)

    def close(self) -> None:
        """Leave."""
        self.client.disconnect()
        self.client.loop_stop()


def enrol(http: httpx.Client, folder: Path, name: str) -> FakeDevice:
    """Register (or give a new token to) and enrol a fake device; its TLS files lie in `folder`."""
    answer = http.post("/devices", json={"id": name, "labels": {"site": "berlin"}})
    if answer.status_code == 409:
        answer = http.post(f"/devices/{name}/token", json={})
    token = Token.decode(answer.raise_for_status().json()["token"])
    device = FakeDevice(name)
    answer = http.post("/enroll", content=device.enrolment(token.secret), headers=JSON).raise_for_status().json()
    trust = pin_root(answer["root"].encode(), token.fleet, token.root_pin, name, answer["incarnation"])
    device.trust, _ = accept_site(trust, answer["site"].encode())
    folder.mkdir()
    for file, data in (("ca", answer["ca"].encode()), ("crt", answer["certificate"].encode()), ("key", device.tls_pem())):
        (folder / file).write_bytes(data)
    return device


def publish(http: httpx.Client, folder: Path, version: int) -> str:
    """Upload a signed release; its digest."""
    made = make_release(release_signer(folder), version)
    for digest, data in made.objects.items():
        http.put(f"/objects/{digest}", content=data).raise_for_status()
    answer = http.post("/releases", json={"envelope": made.envelope.decode()})
    return str(answer.raise_for_status().json()["digest"])


def until(http: httpx.Client, path: str, name: str, value: object) -> dict[str, object]:
    """Poll until a field has a value."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        body: dict[str, object] = http.get(path).raise_for_status().json()
        if body[name] == value:
            return body
        assert time.monotonic() < deadline, body
        time.sleep(0.05)


def fetch(link: Connected, documents: dict[str, bytes], stream: str) -> dict[str, bytes]:
    """Want everything, take frames until the stream is whole, return its objects."""
    fields = Fields.of(canonical.decode(envelope.split(documents["stream"], "stream")[0], "stream"), "stream")
    listed = StreamList.parse(fields)
    progress, whole = Progress(listed), bytearray(listed.size)
    link.send("want", Want(stream, progress.missing()).encode())
    while not progress.done:
        topic, payload = link.next()
        parsed = topics.parse(topic)
        if isinstance(parsed, topics.FrameTopic):
            index, body = parsed.frame, payload
        elif parsed.noun == "blk":
            assert payload[:32].hex() == stream
            index, body = int.from_bytes(payload[32:36], "big"), payload[36:]
        else:
            continue
        progress, at = place(progress, index, body)
        if at is not None:
            whole[at : at + len(body)] = body
    return {digest: bytes(whole[start:end]) for digest, start, end in offsets(listed)}


def wished(link: Connected) -> tuple[Desired, dict[str, bytes]]:
    """The next desired document."""
    while True:
        topic, payload = link.next()
        if topic.endswith("/desired"):
            desired, documents = link.device.read(payload, int(time.time()))
            if desired is not None:
                return desired, documents
