"""The manager at work without HTTP: broker, link, and the loops that ingest, publish, deliver and reconcile."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, cast

from edgeops.broker import BrokerPlan, LinkPlan, ManagerLink, RunningBroker, start_broker
from edgeops.store import audit, outbox
from edgeops.wire import topics
from edgeops.wire.errors import Unreachable

from . import approvals, checkpoints, documents, reconcile
from .authority import arrange
from .credential import write_passwords
from .deliver import Delivery
from .hub import Hub
from .inbox import Inbox
from .ingest import Ingest
from .layout import Layout
from .quarantine import MOST_IN_SPAN, SHUT_OUT_S, SPAN_S, Quarantine
from .revoke import write_crl
from .settings import Settings
from .silencer import Silencer
from .site import read_site

_LOG = logging.getLogger("edgeops.manager")
RENEW_S = 3600.0
LET_IN_S = 3.0
BATCH, TOGETHER = 100, 32
LOCAL = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 translated, not bound


class Running:
    """Everything that runs next to the API. `stop` leaves no thread and no process behind."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        hub.blobs.sweep()
        _arrange(hub)
        write_crl(hub)
        self.broker = _start_broker(hub)
        self.hub = hub.with_settings(replace(hub.settings, mqtt_port=self.broker.port))
        self.link = self._new_link()
        self.renewing = threading.Lock()
        self.on_renewed: Callable[[], None] = lambda: None
        self.delivery = Delivery(self.hub, lambda topic, payload, qos: self.link.publish(topic, payload, qos))
        self.ingest = Ingest(self.hub, self.delivery)
        self._inbox, self._quarantine = Inbox(), Quarantine()
        host = LOCAL.get(hub.settings.bind, hub.settings.bind)
        self.silencer = Silencer(self.hub, lambda: self.broker, host, lambda: self._quarantine.names)
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, patience_s: float = 15.0) -> None:
        """Begin to work; raises Unreachable("broker-link") when our own link does not come up."""
        reconcile.forget_presence(self.hub)
        approvals.tell_setting(self.hub)
        documents.log_missing(self.hub)
        self.link.start()
        for name, body in (
            ("ingest", self._ingest), ("outbox", self._publish), ("deliver", self.delivery.run), ("ticks", self._tick),
            ("silencer", self.silencer.run),
        ):  # fmt: skip
            thread = threading.Thread(target=body, name=f"edgeops-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()
        if not self.link.wait_connected(patience_s):
            self.stop()
            raise Unreachable("broker-link", f"the manager cannot connect to its own broker on port {self.broker.port}")
        _guarded(self.silencer.resume)

    def stop(self) -> None:
        """Stop everything and wait for it; a second call does nothing."""
        again = self._stopping.is_set()
        self._stopping.set()
        self.hub.store.committed.set()
        self.delivery.stop()
        self.link.stop()
        self._inbox.close()
        self.silencer.close()
        for thread in self._threads:
            thread.join(10.0)
        self.broker.stop()
        if not again:
            _guarded(lambda: checkpoints.make(self.hub))

    def _new_link(self) -> ManagerLink:
        link = ManagerLink(_link_plan(self.hub))
        link.on_message = self._received
        link.subscribe([(topics.ALL_UPS, 1)])
        return link

    def renew_tls(self) -> None:
        """A site was published: if other CAs follow from it, broker and link start anew; devices come back by themselves."""
        with self.renewing:
            if not _arrange(self.hub):
                return
            write_crl(self.hub)
            self.link.stop()
            self.broker.stop()
            self.broker = _start_broker(self.hub)
            self.silencer.tell()
            self.link = self._new_link()
            self.link.start()
            self.on_renewed()

    def silence(self, device: str) -> dict[str, Any]:
        """See a revoked device out of the broker: `silenced`, after how many ms or what is `missing`, which goes on being tried."""
        return self.silencer.silence(device)

    def let_in(self, device: str, incarnation: int) -> None:
        """A device has enrolled: whatever session its older certificate has ends before it hears of the new one."""
        if incarnation > 1 or device in self.silencer.names:
            self.silencer.silence(device, LET_IN_S)

    def health(self) -> dict[str, Any]:
        """What `GET /health` says of the broker and our loops."""
        alive = self.broker.alive() and all(thread.is_alive() for thread in self._threads)
        return {
            "status": "ok" if alive and self.link.connected else "failing",
            "broker": {
                "kind": self.broker.kind, "host": self.broker.host, "port": self.broker.port, "alive": self.broker.alive(),
                "connected": self.link.connected, "acl_denied": self.broker.acl_denied(),
            },
            "acl_denied": self.broker.acl_denied(), "messages": self.ingest.counts, "waiting": self._inbox.waiting,
            "dropped": self._inbox.dropped, "shut_out": sorted(self._quarantine.names),
        }  # fmt: skip

    def _received(self, topic: str, payload: bytes, _retained: bool) -> None:
        """In paho's thread."""
        self._inbox.put(topic, payload)

    def _ingest(self) -> None:
        while batch := self._inbox.get(TOGETHER):
            _guarded(lambda batch=batch: self.ingest.take_all(batch))  # type: ignore[misc]

    def _publish(self) -> None:
        while not self._stopping.is_set():
            self.hub.store.committed.wait(1.0)
            self.hub.store.committed.clear()
            _guarded(self._empty_outbox)

    def _empty_outbox(self) -> None:
        while not self._stopping.is_set() and self.link.connected:
            with self.hub.store.read() as tx:
                letters = outbox.waiting(tx, BATCH)
            if not letters:
                return
            done = []
            for letter in letters:
                if not self.link.publish(letter.topic, letter.payload, letter.qos, letter.retain):
                    break
                done.append(letter.id)
            with self.hub.store.write() as tx:
                outbox.sent(tx, done)
            if len(done) < len(letters):
                self._stopping.wait(0.05)

    def _tick(self) -> None:
        renew_at = forget_at = time.monotonic()
        while not self._stopping.wait(self.hub.settings.tick_ms / 1000):
            _guarded(lambda: reconcile.tick(self.hub))
            _guarded(self._shut_out_floods)
            _guarded(self.silencer.look)
            if time.monotonic() >= forget_at:
                forget_at = time.monotonic() + SPAN_S
                self._inbox.count_anew()
            if time.monotonic() >= renew_at:
                renew_at = time.monotonic() + RENEW_S
                _guarded(lambda: reconcile.renew(self.hub))
                _guarded(self._renew_crl)
                _guarded(lambda: checkpoints.make(self.hub))

    def _renew_crl(self) -> None:
        """A list that has expired would shut everybody out."""
        write_crl(self.hub)
        self.silencer.tell()

    def _shut_out_floods(self) -> None:
        loud = self._inbox.loud(MOST_IN_SPAN)
        if not self._quarantine.look(loud, time.monotonic()):
            return
        self.silencer.look()
        with self.hub.store.write() as tx:
            for name in filter(None, loud):
                text = f"more than {MOST_IN_SPAN} messages in {SPAN_S:.0f} s: shut out for {SHUT_OUT_S:.0f} s"
                audit.write(tx, self.hub.now(), "ingest", "device-flood", name, text)


def _guarded(call: Callable[[], None]) -> None:
    try:
        call()
    except Exception:
        # One bad message or row must not end the loop that serves all others.
        _LOG.exception("a loop of the manager failed once")


def _arrange(hub: Hub) -> bool:
    papers = hub.papers
    return arrange(hub.layout, hub.settings, read_site(papers.site), papers.authority, hub.now())


def broker_plan(layout: Layout, settings: Settings) -> BrokerPlan:
    """What the broker of this manager needs to know."""
    return BrokerPlan(
        layout.broker, settings.bind, settings.mqtt_port, layout.clients, layout.certificate("server"),
        layout.tls_key("server"), layout.crl, settings.wss_port or None, layout.passwords,
    )  # fmt: skip


def _start_broker(hub: Hub) -> RunningBroker:
    hub.layout.broker.mkdir(mode=0o700, exist_ok=True)
    hub.layout.broker.chmod(0o700)
    write_passwords(hub)
    choice = cast(Literal["auto", "mosquitto", "built-in"], hub.settings.broker)
    return start_broker(choice, broker_plan(hub.layout, hub.settings))


def _link_plan(hub: Hub) -> LinkPlan:
    layout, settings = hub.layout, hub.settings
    host = LOCAL.get(settings.bind, settings.bind)
    return LinkPlan(
        host, settings.mqtt_port, layout.certificate("ca"), layout.certificate("manager"), layout.tls_key("manager")
    )
