"""The thief: one has stolen a device's certificate, another the manager's broker credential. Neither has the online signing key."""

import queue
import ssl
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edgeops.wire import envelope, topics
from edgeops.wire.errors import Unreachable
from edgeops.wire.messages import Bundle

WAIT_S = 10


@dataclass(frozen=True, slots=True)
class Credential:
    """A stolen certificate: who it says it is, and its files."""

    name: str
    ca: Path
    certificate: Path
    key: Path


class Thief:
    """A broker connection with a stolen credential; use as a context manager."""

    def __init__(self, host: str, port: int, credential: Credential) -> None:
        self._inbox: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._up: queue.Queue[bool] = queue.Queue()
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=credential.name, reconnect_on_failure=False)
        client.tls_set(
            str(credential.ca), str(credential.certificate), str(credential.key), tls_version=ssl.PROTOCOL_TLS_CLIENT
        )
        client.on_connect = lambda *_: self._up.put(True)
        client.on_message = lambda _c, _d, message: self._inbox.put((message.topic, bytes(message.payload)))
        self._client, self._host, self._port = client, host, port

    def __enter__(self) -> "Thief":
        self._client.connect(self._host, self._port)
        self._client.loop_start()
        try:
            self._up.get(timeout=WAIT_S)
        except queue.Empty:
            raise Unreachable("no-broker", f"the broker at {self._host}:{self._port} did not answer the thief") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def take_retained(self, device: str) -> bytes | None:
        """The orders retained for `device`, None when there are none within the wait."""
        self._client.subscribe(topics.down(device, "desired"), 1)
        try:
            return self._inbox.get(timeout=WAIT_S)[1]
        except queue.Empty:
            return None

    def put(self, topic: str, payload: bytes) -> None:
        """Publish and wait until the broker has taken it."""
        self._client.publish(topic, payload, qos=1).wait_for_publish(WAIT_S)


def tampered_frame(bundle: bytes) -> bytes:
    """A frame of the stream that `bundle` (a desired bundle) names, with bytes of the thief's own."""
    streams = [data for kind, data in Bundle.decode(bundle).documents if kind == "stream"]
    digest = envelope.digest_of(streams[0], "stream") if streams else "0" * 64
    return bytes.fromhex(digest) + (0).to_bytes(4) + b"not the bytes that were signed" * 100


def attack(thief: Thief, victim: str, old_desired: bytes) -> None:
    """Twice each: a tampered frame and a replayed desired document for `victim`."""
    for _ in range(2):
        thief.put(topics.down(victim, "blk"), tampered_frame(old_desired))
        thief.put(topics.down(victim, "desired"), old_desired)
