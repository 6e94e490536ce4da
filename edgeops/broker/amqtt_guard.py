"""amqtt with its holes closed (docs/adr/0003). Every override names the behaviour of amqtt 0.12.1 it replaces."""

import asyncio
import contextlib
import functools
import logging
import math
import socket
import ssl
from collections.abc import Collection
from pathlib import Path
from typing import Any

import websockets
from amqtt.broker import Broker
from amqtt.contexts import ListenerType
from amqtt.errors import AMQTTError
from amqtt.mqtt.connack import NOT_AUTHORIZED, ConnackPacket
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.session import Session

from . import passwords
from .acl import MANAGER, known_name, matches, may_publish, may_read
from .amqtt_streams import MAX_PACKET, FrameOutlet, FrameReader, Intake, Outlet
from .reach import CIPHERS

_LOG = logging.getLogger("edgeops.broker")
_CONNECT_S = 10.0
_STOP_S = 1.0
# Who promises no keepalive, or an absurd one, is believed gone after this long without a word.
_MOST_KEEPALIVE_S = 1200
_QUEUED_MESSAGES = 4000
_RECEIVED_MESSAGES = 500
_QUEUED_BYTES = 16 << 20
_RETAINED_PER_DEVICE = 16
_OVERRIDDEN = (
    "_create_ssl_context _initialize_client_session _authenticate _handle_message_delivery _topic_filtering "
    "_run_broadcast _publish_retained_messages_for_subscription _cleanup_session stream_connected retain_message "
    "ws_connected _create_server_instance start _stop_handler"
)


def check_amqtt() -> None:
    """Raise RuntimeError if this amqtt no longer has the methods our guards replace: they would be silently off."""
    missing = [name for name in _OVERRIDDEN.split() if not hasattr(Broker, name)]
    if missing or not hasattr(BrokerProtocolHandler, "handle_read_timeout"):
        raise RuntimeError(f"this version of amqtt cannot be guarded, {missing} are gone; install amqtt 0.12 or mosquitto")


def certificate_name(secure: ssl.SSLObject | None) -> str:
    """The one common name in the client's certificate; empty if there is none or more than one."""
    peer: Any = secure.getpeercert() if secure is not None else None
    names = [value for rdn in (peer or {}).get("subject", ()) for key, value in rdn if key == "commonName"]
    return str(names[0]) if len(names) == 1 else ""


class PromptConnection(BrokerProtocolHandler):  # type: ignore[misc]
    """amqtt ignores a read timeout, so half-open clients stayed connected for ever."""

    def handle_read_timeout(self) -> None:
        """End the connection of a client that broke its keepalive."""
        _LOG.info("%s fell silent, connection ended", self.session.client_id if self.session else "?")
        self.ending = asyncio.ensure_future(self.handle_connection_closed())


class GuardedBroker(Broker):  # type: ignore[misc]
    """A broker where the certificate's name is user, client id and key to the ACL; for browsers, the name a password proves."""

    def __init__(self, config: dict[str, Any], crl: str | None, password_file: str | None = None) -> None:
        self._crl = crl
        self._password_file = password_file
        self._verifiers: dict[str, str] = {}
        self._admitted: dict[str, str] = {}
        self._context: ssl.SSLContext | None = None
        self._revoked: frozenset[str] = frozenset()
        self._load: dict[int, tuple[int, int]] = {}
        self._sending: set[asyncio.Task[Any]] = set()
        super().__init__(config)
        self._broadcast_queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=_RECEIVED_MESSAGES)

    async def start(self) -> None:
        """Start with the passwords of now."""
        self._read_passwords()
        await super().start()

    async def reload(self, revoked: Collection[str]) -> None:
        """Read revocation list and passwords again; end the sessions of `revoked` and of passwords that are none any more."""
        if self._context is not None and self._crl is not None:
            self._context.load_verify_locations(self._crl)
        self._read_passwords()
        self._revoked = frozenset(revoked)
        lapsed = {name for name, verifier in self._admitted.items() if self._verifiers.get(name) != verifier}
        # Together: each may take a second to notice that its peer does not answer.
        await asyncio.gather(*(self._cleanup_session(name) for name in self._revoked | lapsed))

    def _read_passwords(self) -> None:
        if self._password_file is not None:
            self._verifiers = passwords.parse(Path(self._password_file).read_text())

    async def _cleanup_session(self, client_id: str) -> None:
        self._admitted.pop(client_id, None)
        await super()._cleanup_session(client_id)

    async def _stop_handler(self, handler: BrokerProtocolHandler) -> None:
        """Close first: amqtt waits for ever for a reader whose cancellation was lost to a packet that came just then."""
        if handler.writer is not None:
            await handler.writer.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                await super()._stop_handler(handler)

    def _create_ssl_context(self, listener: Any) -> ssl.SSLContext:
        """Require a certificate (amqtt: optional) but of browsers; no tickets, as a resumed session skips the revocation list."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(str(listener["certfile"]), str(listener["keyfile"]))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS)
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        if listener["type"] == ListenerType.WS:
            return context
        context.load_verify_locations(str(listener["cafile"]))
        context.verify_mode = ssl.CERT_REQUIRED
        if self._crl is not None:
            context.load_verify_locations(self._crl)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        self._context = context
        return context

    async def _create_server_instance(self, name: str, kind: Any, address: Any, port: int, context: Any) -> Any:
        """Bound what happens before the first MQTT byte: amqtt lets a handshake take a minute, and a browser inflate frames."""
        if kind == ListenerType.WS:
            body = functools.partial(self.ws_connected, listener_name=name)
            protocols = [websockets.Subprotocol("mqtt")]
            bounds: dict[str, Any] = {"compression": None, "open_timeout": _CONNECT_S, "max_size": MAX_PACKET}
            return await websockets.serve(body, address, port, ssl=context, subprotocols=protocols, **bounds)
        accept = functools.partial(self.stream_connected, listener_name=name)
        return await asyncio.start_server(accept, address, port, reuse_address=True, ssl=context, ssl_handshake_timeout=_CONNECT_S)

    async def ws_connected(self, websocket: Any, listener_name: str) -> None:
        """The same for browsers."""
        await self._client_connected(listener_name, Intake(FrameReader(websocket)), FrameOutlet(websocket))

    async def stream_connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str) -> None:
        """Put our bounded adapters around the socket."""
        raw = writer.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        await self._client_connected(listener_name, Intake(reader), Outlet(writer))

    async def _initialize_client_session(
        self, reader: Any, writer: Any, remote_address: str, remote_port: int
    ) -> tuple[BrokerProtocolHandler, Session]:
        """Decide who this is before touching any session: amqtt deletes or takes over the named session first, so a wrong
        client id kicked its victim. Sessions are never kept offline (amqtt queues for them without a bound).
        """
        try:
            async with asyncio.timeout(_CONNECT_S):
                handler, session = await PromptConnection.init_from_connect(reader, writer, self.plugins_manager)
            name = self._proven(session, writer.by_password)
            refusal = self._refusal(session, name)
            if name in self._revoked:
                await self._cleanup_session(name)
            if refusal:
                _LOG.info("%s", refusal)
                await ConnackPacket.build(0, NOT_AUTHORIZED).to_stream(writer)
        except Exception as error:
            # Whatever a stranger's first bytes provoke must not keep its place in the listener's count.
            await writer.close()
            raise AMQTTError(f"no valid CONNECT from {remote_address}:{remote_port}: {error!r}") from error
        if refusal:
            await writer.close()
            raise AMQTTError(refusal)
        session.clean_session, session.parent = True, 0
        session.keep_alive = math.ceil(min(session.keep_alive or _MOST_KEEPALIVE_S, _MOST_KEEPALIVE_S) * 1.5)
        session.delivered_message_queue = asyncio.Queue(maxsize=_RECEIVED_MESSAGES)
        reader.backlog, reader.patience_s = session.delivered_message_queue, session.keep_alive
        while session.client_id in self._sessions:
            await self._cleanup_session(session.client_id)
        self._sessions[session.client_id] = (session, handler)
        if writer.by_password:
            self._admitted[session.client_id] = self._verifiers[name]
        return handler, session

    def _proven(self, session: Session, by_password: bool) -> str:
        """Whose name the client has proven, empty for none."""
        if not by_password:
            return certificate_name(session.ssl_object)
        name, verifier = session.username or "", self._verifiers.get(session.username or "", passwords.LOCKED)
        return name if passwords.fits(session.password or "", verifier) else ""

    def _refusal(self, session: Session, name: str) -> str:
        if not known_name(name) or name in self._revoked:
            return f"refused CONNECT of the certificate or user {name or session.username!r}"
        if session.client_id != name or session.username not in (None, name):
            return f"refused CONNECT of {name}: client id {session.client_id!r}, user {session.username!r}"
        if session.will_flag and not may_publish(name, session.will_topic or ""):
            return f"Denied WILL of {name} on {session.will_topic!r}"
        return ""

    async def _authenticate(self, session: Session, _: Any) -> bool:
        """Known since `_initialize_client_session`; must not yield, or two connections of one name could both register."""
        return session.client_id in self._sessions and self._sessions[session.client_id][0] is session

    async def _topic_filtering(self, session: Session, topic: str, action: Any) -> bool:
        """Our ACL instead of plugins."""
        allowed = may_read(session.client_id, topic)
        if not allowed:
            _LOG.info("Denied %s of %s on %r", action, session.client_id, topic)
        return allowed

    async def _handle_message_delivery(self, session: Session, handler: Any, wait_deliver: Any) -> bool:
        """Check, pass on, retain. amqtt left the connection of a client with an invalid topic open but deaf."""
        message = wait_deliver.result()
        if message is None:
            return True
        if not message.topic or any(letter in message.topic for letter in "+#\0"):
            await handler.handle_connection_closed()
        elif not may_publish(session.client_id, message.topic):
            _LOG.info("Denied PUBLISH of %s on %r", session.client_id, message.topic)
        else:
            await self._broadcast_message(session, message.topic, message.data)
            if message.publish_packet and message.publish_packet.retain_flag:
                await self.retain_message(session, message.topic, message.data, message.qos)
        return True

    async def retain_message(self, source: Session | None, topic: str | None, data: Any, qos: int | None = None) -> None:
        """Keep the last message of a topic; a device may hold only a few."""
        name = source.client_id if source is not None else MANAGER
        if data and name != MANAGER and topic not in self._retained_messages:
            held = sum(kept.source_session == source for kept in self._retained_messages.values())
            if held >= _RETAINED_PER_DEVICE:
                _LOG.warning("%s retains more than %d messages, %r was not kept", name, _RETAINED_PER_DEVICE, topic)
                return
        await super().retain_message(source, topic, data, qos)

    async def _publish_retained_messages_for_subscription(self, subscription: tuple[str, int], session: Session) -> None:
        """Only to a subscriber of that filter: amqtt sends every new client the retained messages of everybody's filters."""
        wanted, qos = subscription
        if not any(held is session for held, _ in self._subscriptions.get(wanted, ())):
            return
        for topic, kept in list(self._retained_messages.items()):
            if matches(wanted, topic.split("/")):
                self._offer(session, topic, kept.data, min(qos, kept.qos or 0), retain=True)

    async def _run_broadcast(self, running_tasks: Any) -> None:
        """Route one message. amqtt iterates over the live table while others change it, and queues without a bound."""
        message = await self._broadcast_queue.get()
        levels = message["topic"].split("/")
        for wanted, subscriptions in list(self._subscriptions.items()):
            if matches(wanted, levels):
                for session, qos in list(subscriptions):
                    self._offer(session, message["topic"], message["data"], message.get("qos", qos), retain=False)

    def _offer(self, session: Session, topic: str, data: Any, qos: int, *, retain: bool) -> None:
        current, handler = self._sessions.get(session.client_id, (None, None))
        if handler is None or current is not session or session.transitions.state != "connected":
            return
        key, (count, size) = id(session), self._load.get(id(session), (0, 0))
        if not may_read(session.client_id, topic) or count >= _QUEUED_MESSAGES or size + len(data) > _QUEUED_BYTES:
            return
        self._load[key] = (count + 1, size + len(data))
        task = asyncio.ensure_future(handler.mqtt_publish(topic, data, qos, retain=retain))
        self._sending.add(task)
        task.add_done_callback(functools.partial(self._offered, key, len(data)))

    def _offered(self, key: int, size: int, task: "asyncio.Task[Any]") -> None:
        self._sending.discard(task)
        count, total = self._load.pop(key)
        if count > 1:
            self._load[key] = (count - 1, total - size)
        if not task.cancelled() and task.exception() is not None:
            _LOG.debug("a message was not delivered: %r", task.exception())
