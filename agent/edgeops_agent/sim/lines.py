"""Real MQTT for many straws in one thread: paho's own state machine per straw, one selector for all their sockets.

Only connecting blocks (TCP and TLS handshake, bounded by `CONNECT_S`), so a turn of the loop opens few connections, then looks at
the others again. Backoff is the device link's: full jitter, and a kick right after connecting counts as a failure too.
"""

import selectors
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt

from ..shell.link import BASE_S, CAP_S, KEEPALIVE_S, STABLE_S, LinkSettings, new_client
from ..shell.reach import Way

CONNECT_S = 5.0
DIALS_A_TURN = 5


class Line:
    """One straw's connection. Assign `up` and `take` before it is opened."""

    def __init__(self, selector: selectors.BaseSelector, draw: Callable[[], float]) -> None:
        self._selector, self._draw = selector, draw
        self._filters: set[str] = set()
        self._failures = 0
        self._began = 0.0
        self._client: mqtt.Client | None = None
        self._host, self._port = "", 0
        self._settings: LinkSettings | None = None
        self._way: Way | None = None
        self.dial_at = 0.0
        self.connected = False
        self.up: Callable[[], None] = lambda: None
        self.take: Callable[[str, bytes], None] = lambda topic, data: None

    def open(self, settings: LinkSettings) -> None:
        """Say where to connect and as whom; `dial` does it."""
        self._settings, self._failures = settings, 0
        self._turn()

    def _turn(self) -> None:
        """A client for the way whose turn it is, unless the one there is was made for it."""
        ways = self._settings.ways if self._settings else ()
        if not ways or not self._settings or self._way == (way := ways[self._failures % len(ways)]):
            return
        parts = urlsplit(way.url)
        self._way, self._host, self._port = way, parts.hostname or "", parts.port or 8883
        self._client = client = new_client(self._settings, way)
        client.connect_timeout = CONNECT_S
        client.on_connect, client.on_disconnect, client.on_message = self._joined, self._parted, self._came
        client.on_socket_open = lambda _client, _data, sock: self._watch(sock, selectors.EVENT_READ)
        client.on_socket_close = lambda _client, _data, sock: self._unwatch(sock)
        client.on_socket_register_write = lambda _c, _d, sock: self._watch(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
        client.on_socket_unregister_write = lambda _client, _data, sock: self._watch(sock, selectors.EVENT_READ)

    def _watch(self, sock: Any, events: int) -> None:
        if sock.fileno() in self._selector.get_map():
            self._selector.modify(sock, events, self)
        else:
            self._selector.register(sock, events, self)

    def _unwatch(self, sock: Any) -> None:
        if sock.fileno() in self._selector.get_map():
            self._selector.unregister(sock)

    @property
    def idle(self) -> bool:
        """Whether there is no socket."""
        return self._client is None or self._client.socket() is None

    def dial(self) -> None:
        """Connect; what fails is tried again later, by the next way."""
        self._turn()
        if self._client is None:
            return
        self._began = time.monotonic()
        try:
            self._client.connect(self._host, self._port, KEEPALIVE_S)
        except OSError:
            self._later()

    def _later(self) -> None:
        self.connected = False
        now = time.monotonic()
        self._failures = 0 if now - self._began > STABLE_S else self._failures + 1
        self.dial_at = now + self._draw() * min(CAP_S, BASE_S * 2 ** min(self._failures, 10))

    def serve(self, mask: int) -> None:
        """The selector says that the socket is ready."""
        client = self._client
        if client is None:
            return
        if mask & selectors.EVENT_WRITE:
            client.loop_write()
        if mask & selectors.EVENT_READ:
            client.loop_read()
            # TLS may hold more than one record, of which the selector knows nothing.
            while isinstance(sock := client.socket(), ssl.SSLSocket) and sock.pending():
                client.loop_read()

    def look(self) -> None:
        """Keepalive."""
        if self._client is not None:
            self._client.loop_misc()

    def _joined(self, client: mqtt.Client, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        if code.is_failure:
            return  # paho closes the socket, `_parted` comes next
        self.connected = True
        for topic in sorted(self._filters):
            client.subscribe(topic, _qos(topic))
        self.up()

    def _parted(self, _client: mqtt.Client, _data: Any, _flags: Any, _code: Any, _properties: Any) -> None:
        self._later()

    def _came(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        self.take(message.topic, bytes(message.payload))

    def publish(self, topic: str, payload: bytes) -> bool:
        """Hand a message to the client; False when not connected or too many wait."""
        if self._client is None or not self.connected:
            return False
        return self._client.publish(topic, payload, 1).rc == mqtt.MQTT_ERR_SUCCESS

    def subscribe(self, topic: str) -> None:
        """Subscribe now and after every reconnect."""
        self._filters.add(topic)
        if self._client is not None and self.connected:
            self._client.subscribe(topic, _qos(topic))

    def unsubscribe(self, topic: str) -> None:
        """The reverse."""
        self._filters.discard(topic)
        if self._client is not None and self.connected:
            self._client.unsubscribe(topic)

    @property
    def unsent(self) -> bool:
        """Whether something is still on its way out."""
        return self._client is not None and self.connected and bool(self._client.want_write())

    def close(self) -> None:
        """Disconnect politely."""
        if self._client is not None and not self.idle:
            self._client.disconnect()


def _qos(topic: str) -> int:
    return 1 if "/d/" in topic else 0
