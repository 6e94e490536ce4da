"""The device's MQTT link: paho over mutual TLS, bounded queues, full-jitter backoff that also backs off after being kicked."""

import contextlib
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edgeops.wire.errors import Misuse

from .tls import timeless

BASE_S, CAP_S, STABLE_S = 1.0, 60.0, 30.0
MAX_QUEUED = 256
KEEPALIVE_S = 30
LOOK_S = 1.0

OnMessage = Callable[[str, bytes], None]


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Where to connect and as whom; `url` is mqtts://host:port."""

    url: str
    device: str
    ca: Path
    certificate: Path
    key: Path
    will_topic: str
    will: bytes


def new_client(settings: LinkSettings) -> mqtt.Client:
    """A client that is not connected yet and has no callbacks; raises Misuse("tls-files")."""
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2, client_id=settings.device, protocol=mqtt.MQTTv311, clean_session=True,
        reconnect_on_failure=False,
    )  # fmt: skip
    client.max_queued_messages_set(MAX_QUEUED)
    try:
        context = timeless(settings.ca.read_text())
        context.load_cert_chain(settings.certificate, settings.key)
    except (OSError, ValueError) as error:
        raise Misuse("tls-files", f"the TLS files of this device cannot be used: {error}; enrol it again") from None
    client.tls_set_context(context)
    client.will_set(settings.will_topic, settings.will, qos=1)
    return client


class DeviceLink:
    """A connection that keeps coming back. Callbacks run in paho's thread and must only enqueue.

    `draw` gives a number in [0, 1) for the jitter; `now` monotonic seconds; `least` the Unix time that has passed for sure.
    """

    def __init__(
        self, settings: LinkSettings, on_connect: Callable[[], None], on_message: OnMessage,
        draw: Callable[[], float], now: Callable[[], float], least: Callable[[], int],
    ) -> None:  # fmt: skip
        self._settings, self._on_connect, self._on_message = settings, on_connect, on_message
        self._draw, self._now, self._least = draw, now, least
        self._stopping = threading.Event()
        self._gone = threading.Event()
        self._thread: threading.Thread | None = None
        self._filters: set[str] = set()
        self.connected = False
        self._client = self._make()

    def _make(self) -> mqtt.Client:
        client = new_client(self._settings)
        client.on_connect, client.on_disconnect, client.on_message = self._connected, self._disconnected, self._message
        return client

    def start(self) -> None:
        """Begin connecting in the background."""
        self._thread = threading.Thread(target=self._keep_connected, name="link", daemon=True)
        self._thread.start()

    def _keep_connected(self) -> None:
        parts = urlsplit(self._settings.url)
        failures = 0
        while not self._stopping.is_set():
            self._gone.clear()
            began = self._now()
            try:
                self._client.connect(parts.hostname or "", parts.port or 8883, KEEPALIVE_S)
                self._check_expiry()
                self._client.loop_start()
                while not self._gone.wait(LOOK_S) and self._is_looping():
                    pass
                self._client.loop_stop()
            except (OSError, ValueError):
                pass
            self.connected = False
            # A kick right after connecting counts as a failure too; only a stable connection resets the backoff.
            failures = 0 if self._now() - began > STABLE_S else failures + 1
            self._stopping.wait(self._draw() * min(CAP_S, BASE_S * 2 ** min(failures, 10)))

    def _check_expiry(self) -> None:
        """Raise OSError when the broker's certificate has expired for sure."""
        sock = self._client.socket()
        shown = sock.getpeercert() if isinstance(sock, ssl.SSLSocket) else None
        if shown and ssl.cert_time_to_seconds(str(shown["notAfter"])) < self._least():
            self._client.disconnect()
            raise ConnectionError("the broker's certificate has expired")

    def _is_looping(self) -> bool:
        """Whether paho's thread lives; what a broken broker sends can end it without a word."""
        name = f"paho-mqtt-client-{self._settings.device}"
        return any(thread.name == name for thread in threading.enumerate())

    def _connected(self, client: mqtt.Client, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        if code.is_failure:
            self._gone.set()
            return
        self.connected = True
        for topic in sorted(self._filters):
            client.subscribe(topic, 1 if "/d/" in topic else 0)
        self._on_connect()

    def _disconnected(self, _client: mqtt.Client, _data: Any, _flags: Any, _code: Any, _properties: Any) -> None:
        self.connected = False
        self._gone.set()

    def _message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:  # raised in here, it would end paho's thread
            topic = ""
        self._on_message(topic, bytes(message.payload))

    def subscribe(self, topic: str) -> None:
        """Subscribe now and after every reconnect."""
        self._filters.add(topic)
        if self.connected:
            self._client.subscribe(topic, 1 if "/d/" in topic else 0)

    def unsubscribe(self, topic: str) -> None:
        """The reverse."""
        self._filters.discard(topic)
        if self.connected:
            self._client.unsubscribe(topic)

    def publish(self, topic: str, payload: bytes, qos: int = 1) -> bool:
        """Hand a message to the client; False when not connected (the caller keeps what matters)."""
        return self.connected and self._client.publish(topic, payload, qos).rc == mqtt.MQTT_ERR_SUCCESS

    def stop(self, farewell: tuple[str, bytes] | None = None) -> None:
        """Say goodbye, disconnect, end the thread."""
        self._stopping.set()
        if farewell and self.connected:
            with contextlib.suppress(ValueError, RuntimeError):  # the queue is full, or the connection just went
                self._client.publish(*farewell, qos=1).wait_for_publish(2)
        self._client.disconnect()
        self._gone.set()
        if self._thread:
            self._thread.join(5)
