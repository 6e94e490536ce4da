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

from edgeops.wire.errors import Misuse, Unreachable

from .reach import Way
from .tls import check_expiry, timeless

BASE_S, CAP_S, STABLE_S = 1.0, 60.0, 30.0
MAX_QUEUED = 256
KEEPALIVE_S = 30
LOOK_S = 1.0
MOST_TOLD = 32

OnMessage = Callable[[str, bytes], None]


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Where to connect, in the order to be tried, and as whom (one file may hold both certificate and key)."""

    ways: tuple[Way, ...]
    device: str
    certificate: Path
    key: Path
    will_topic: str
    will: bytes


def new_client(settings: LinkSettings, way: Way) -> mqtt.Client:
    """A client that is not connected yet and has no callbacks; raises Misuse("tls-files")."""
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2, client_id=settings.device, protocol=mqtt.MQTTv311, clean_session=True,
        reconnect_on_failure=False,
    )  # fmt: skip
    client.max_queued_messages_set(MAX_QUEUED)
    try:
        context = timeless(way.cas)
        context.load_cert_chain(settings.certificate, settings.key)
    except (OSError, ValueError) as error:
        raise Misuse("tls-files", f"the TLS files of this device cannot be used: {error}; enrol it again") from None
    client.tls_set_context(context)
    client.will_set(settings.will_topic, settings.will, qos=1)
    return client


class DeviceLink:
    """A connection that keeps coming back. Callbacks run in paho's thread and must only enqueue.

    `draw` gives a number in [0, 1) for the jitter; `now` monotonic seconds; `least` the Unix time that has passed for sure.
    `way` is the one in use; `refused` counts brokers in a row that answered but did not let us in; `expired` says that the latest
    one showed a certificate that had ended; `why` is the reason that there is no connection. `tell` hears (connected, URL,
    why), in a thread of the link's: of each connection, and of each reason once until the next connection.
    """

    def __init__(
        self, settings: LinkSettings, on_connect: Callable[[], None], on_message: OnMessage,
        draw: Callable[[], float], now: Callable[[], float], least: Callable[[], int],
    ) -> None:  # fmt: skip
        self._settings, self._on_connect, self._on_message = settings, on_connect, on_message
        self._draw, self._now, self._least = draw, now, least
        self._stopping = threading.Event()
        self._gone = threading.Event()
        self._nudged = threading.Event()
        self._thread: threading.Thread | None = None
        self._filters: set[str] = set()
        self._client: mqtt.Client | None = None
        self._made: tuple[LinkSettings, Way] | None = None
        self.connected = self.expired = False
        self.refused = self._joins = 0
        self.way: Way | None = None
        self.why = self._parting = ""
        self._told: set[tuple[str, str]] = set()
        self.tell: Callable[[bool, str, str], None] = lambda _connected, _url, _why: None

    def start(self) -> None:
        """Begin connecting in the background."""
        self._thread = threading.Thread(target=self._keep_connected, name="link", daemon=True)
        self._thread.start()

    def change(self, settings: LinkSettings) -> None:
        """Use these from now on; a connection that was made otherwise ends."""
        if settings != self._settings or self.refused:
            self._settings, self._made = settings, None
            self._nudge()

    def _nudge(self) -> None:
        self._nudged.set()
        self._gone.set()

    def _keep_connected(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            if self._nudged.is_set():
                self._nudged.clear()
                failures = self.refused = 0
                continue  # `stop` may have been who nudged
            ways, began = self._settings.ways, self._now()
            if ways:
                self._visit(ways[failures % len(ways)])
            # A kick right after connecting counts as a failure too; only a stable connection resets the backoff.
            failures = 0 if self._now() - began > STABLE_S else failures + 1
            rounds = -(-failures // max(1, len(ways)))
            self._nudged.wait(self._draw() * min(CAP_S, BASE_S * 2 ** min(rounds, 10)))

    def _visit(self, way: Way) -> None:
        """One connection, from the first byte until it ends."""
        self._gone.clear()
        self.way, self.expired, reached, joined = way, False, False, self._joins
        why = self._parting = ""
        try:
            client = self._client_for(way)
            parts = urlsplit(way.url)
            client.connect(parts.hostname or "", parts.port or 8883, KEEPALIVE_S)
            reached = True
            check_expiry(client.socket(), self._least())
            client.loop_start()
            while not (self._gone.wait(LOOK_S) or self._nudged.is_set()) and self._is_looping():
                pass
            if self._nudged.is_set():
                client.disconnect()
            client.loop_stop()
        except Unreachable as error:
            self.expired, reached, why = True, False, error.message
            client.disconnect()
        except ssl.SSLCertVerificationError as error:
            why = f"whoever answers there is not of our fleet: {error.verify_message}"
        except ssl.SSLError as error:
            reached, why = True, f"not let in: {error.reason}"
        except (OSError, ValueError, Misuse) as error:
            why = str(error)
        self.connected = False
        self._change(False, why or self._parting or "the connection has ended")
        if self._joins != joined:
            self.refused = 0
        elif reached and not self._nudged.is_set():
            self.refused += 1

    def _change(self, connected: bool, why: str) -> None:
        """Years without a manager must not fill a log."""
        self.why, url = why, self.way.url if self.way else ""
        if connected:
            self._told.clear()
        elif (url, why) in self._told or len(self._told) >= MOST_TOLD or self._stopping.is_set():
            return
        else:
            self._told.add((url, why))
        self.tell(connected, url, why)

    def _client_for(self, way: Way) -> mqtt.Client:
        """The client made for this way with these settings, with all it has still to send, or a new one."""
        if self._client is None or self._made != (self._settings, way):
            made = self._settings, way
            self._client = client = new_client(*made)
            client.on_connect, client.on_disconnect, client.on_message = self._connected, self._disconnected, self._message
            self._made = made
        return self._client

    def _is_looping(self) -> bool:
        """Whether paho's thread lives; what a broken broker sends can end it without a word."""
        name = f"paho-mqtt-client-{self._settings.device}"
        return any(thread.name == name for thread in threading.enumerate())

    def _connected(self, client: mqtt.Client, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        if code.is_failure:
            self._parting = f"the broker says no: {code}"
            self._gone.set()
            return
        self._joins += 1
        self.connected = True
        self._change(True, "")
        for topic in sorted(self._filters):
            client.subscribe(topic, 1 if "/d/" in topic else 0)
        self._on_connect()

    def _disconnected(self, _client: mqtt.Client, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        self.connected = False
        self._parting = self._parting or f"the connection has ended: {code}"
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
        if self.connected and self._client:
            self._client.subscribe(topic, 1 if "/d/" in topic else 0)

    def unsubscribe(self, topic: str) -> None:
        """The reverse."""
        self._filters.discard(topic)
        if self.connected and self._client:
            self._client.unsubscribe(topic)

    def publish(self, topic: str, payload: bytes, qos: int = 1) -> bool:
        """Hand a message to the client; False when not connected (the caller keeps what matters)."""
        client = self._client
        return self.connected and client is not None and client.publish(topic, payload, qos).rc == mqtt.MQTT_ERR_SUCCESS

    def stop(self, farewell: tuple[str, bytes] | None = None) -> None:
        """Say goodbye, disconnect, end the thread."""
        client = self._client
        if farewell and self.connected and client:
            with contextlib.suppress(ValueError, RuntimeError):  # the queue is full, or the connection just went
                client.publish(*farewell, qos=1).wait_for_publish(2)
        self._stopping.set()
        self._nudge()
        if client:
            client.disconnect()
        if self._thread:
            self._thread.join(5)
