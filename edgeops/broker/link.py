"""The manager's MQTT connection: paho with client certificate, bounded queues and our own backoff.

It calls back from its own thread; a callback must return quickly (put the message on a queue). Subscriptions are renewed on every
connection and nothing relies on a broker that remembers us (clean sessions).
"""

import logging
import random
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edgeops.wire.errors import Misuse

from .acl import MANAGER
from .backoff import Backoff

_LOG = logging.getLogger("edgeops.broker")


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """Where to connect and with which PEM files; `name` must equal the certificate's common name (it is also the client id).

    `max_queued` bounds unacknowledged and unsent messages, `keepalive_s` is MQTT's, `backoff` holds the delays in seconds.
    """

    host: str
    port: int
    ca_path: Path
    cert_path: Path
    key_path: Path
    name: str = MANAGER
    keepalive_s: int = 30
    max_queued: int = 2000
    backoff: Backoff = field(default_factory=Backoff)


class ManagerLink:
    """Stays connected until `stop`. Assign `on_message(topic, payload, retained)` and `on_connect()` before `start`."""

    def __init__(
        self,
        plan: LinkPlan,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        self.on_message: Callable[[str, bytes, bool], None] = lambda topic, payload, retained: None
        self.on_connect: Callable[[], None] = lambda: None
        self._plan, self._clock, self._chance, self._wait = plan, clock, chance, wait
        self._stopping = threading.Event()
        self._up = threading.Event()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._unsent: set[int] = set()
        self._filters: dict[str, int] = {}
        self._lived_from = 0.0
        self._thread: threading.Thread | None = None
        self._client = self._new_client()

    def _new_client(self) -> mqtt.Client:
        plan = self._plan
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=plan.name, clean_session=True, reconnect_on_failure=False)
        client.username_pw_set(plan.name)
        client.max_queued_messages_set(plan.max_queued)
        client.max_inflight_messages_set(100)
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(plan.ca_path))
        context.load_cert_chain(plan.cert_path, plan.key_path)
        client.tls_set_context(context)
        client.on_connect, client.on_disconnect = self._connected, self._disconnected
        client.on_connect_fail, client.on_subscribe = self._not_connected, self._subscribed
        client.on_message, client.on_publish = self._received, self._sent
        return client

    def start(self) -> None:
        """Begin to connect in the background; raises Misuse("link-started") the second time."""
        if self._thread is not None:
            raise Misuse("link-started", "this link was started before; make a new one")
        self._thread = threading.Thread(target=self._run, name="edgeops-link", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Disconnect politely and wait for the thread; queued messages that were not sent are lost. May be called again."""
        self._stopping.set()
        self._client.disconnect()
        self._over.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=10.0)

    @property
    def connected(self) -> bool:
        """True between the broker's yes to our first subscriptions and the loss of that connection."""
        return self._up.is_set()

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds for a connection that hears what it subscribed to."""
        return self._up.wait(timeout_s)

    def publish(self, topic: str, payload: bytes, qos: int = 1, retain: bool = False) -> bool:
        """Hand a message over; False if it was not taken: the queue is full, or QoS 0 without a connection."""
        with self._lock:
            if qos == 0 and (not self._up.is_set() or len(self._unsent) >= self._plan.max_queued):
                return False
            info = self._client.publish(topic, payload, qos, retain)
            if qos == 0 and info.rc == mqtt.MQTT_ERR_SUCCESS:
                self._unsent.add(info.mid)
        return info.rc == mqtt.MQTT_ERR_SUCCESS or (qos > 0 and info.rc == mqtt.MQTT_ERR_NO_CONN)

    def subscribe(self, filters: Sequence[tuple[str, int]]) -> None:
        """Subscribe to (filter, QoS) pairs now and on every later connection."""
        with self._lock:
            self._filters.update(filters)
        if self._client.is_connected():
            self._client.subscribe(list(filters))

    def _run(self) -> None:
        backoff = self._plan.backoff
        while not self._stopping.is_set():
            self._over.clear()
            self._lived_from = self._clock()
            self._client.connect_async(self._plan.host, self._plan.port, self._plan.keepalive_s)
            self._client.loop_start()
            if self._stopping.is_set():
                self._client.disconnect()
                self._over.set()
            self._over.wait()
            self._client.loop_stop()
            lived = self._clock() - self._lived_from if self._up.is_set() else 0.0
            self._up.clear()
            with self._lock:
                self._unsent.clear()
            backoff, delay = backoff.after(lived, self._chance())
            self._wait(self._stopping, delay)

    def _connected(self, client: mqtt.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            _LOG.warning("the broker at %s:%d refused us: %s", self._plan.host, self._plan.port, reason)
            return
        self._lived_from = self._clock()
        with self._lock:
            filters = list(self._filters.items())
        if filters:
            client.subscribe(filters)
        else:
            self._now_up()

    def _subscribed(self, client: mqtt.Client, userdata: Any, mid: int, reasons: Any, properties: Any) -> None:
        refused = [str(reason) for reason in reasons if reason.is_failure]
        if refused:
            _LOG.warning("the broker at %s:%d refused our subscription: %s", self._plan.host, self._plan.port, ", ".join(refused))
            client.disconnect()
        else:
            self._now_up()

    def _now_up(self) -> None:
        """Not before the SUBACK: what a device said in between would be lost to a manager that calls itself ready."""
        if not self._up.is_set():
            self._up.set()
            self._guarded(self.on_connect)

    def _disconnected(self, client: mqtt.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._over.set()

    def _not_connected(self, client: mqtt.Client, userdata: Any) -> None:
        client.loop_stop()
        self._over.set()

    def _sent(self, client: mqtt.Client, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        self._unsent.discard(mid)

    def _received(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        self._guarded(lambda: self.on_message(message.topic, bytes(message.payload), message.retain))

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            # One bad message must not end the thread that receives all others.
            _LOG.exception("a callback of the MQTT link failed")
