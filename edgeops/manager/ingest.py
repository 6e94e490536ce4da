"""Messages of devices: verified with the device's identity key, turned into stored state and events. One transaction a message."""

import logging
import threading
from collections import Counter

from sqlalchemy import Connection

from edgeops.sketch.window import SketchWindow
from edgeops.store import audit, rows
from edgeops.store.rows import Row
from edgeops.store.tables import devices, reports, windows
from edgeops.wire import topics
from edgeops.wire.errors import EdgeopsError, Rejected
from edgeops.wire.messages import Presence, State, Want, open_report, open_tele
from edgeops.wire.topics import DeviceTopic

from .deliver import Delivery
from .desire import acknowledge, adopt, answer
from .hub import Hub
from .outcomes import observe

_LOG = logging.getLogger("edgeops.ingest")


class Ingest:
    """Takes messages one at a time; what is refused is counted by reason and changes nothing."""

    def __init__(self, hub: Hub, delivery: Delivery) -> None:
        self._hub, self._delivery = hub, delivery
        self._counting = threading.Lock()
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> dict[str, int]:
        """Messages taken, by noun, and refused, by reason."""
        with self._counting:
            return dict(self._counts)

    def _count(self, name: str) -> None:
        with self._counting:
            self._counts[name] += 1

    def take(self, topic: str, payload: bytes) -> None:
        """Process one message; never raises for what a device sent."""
        try:
            parsed = topics.parse(topic)
            if not isinstance(parsed, DeviceTopic) or parsed.direction != "up":
                raise Rejected("bad-topic", f"not a topic of a device: {topic[:128]!r}")
            self._dispatch(parsed, payload)
            self._count(parsed.noun)
        except EdgeopsError as error:
            self._count(f"refused.{error.reason}")
            _LOG.warning("refused a message on %s: %s", topic, error)

    def _dispatch(self, topic: DeviceTopic, payload: bytes) -> None:
        if topic.noun == "want":
            self._delivery.want(topic.device, Want.decode(payload))
            return
        with self._hub.store.write() as tx:
            row = rows.get(tx, devices, id=topic.device)
            if row is None or row["status"] != "enrolled" or row["identity"] is None:
                raise Rejected("unknown-device", f"{topic.device} is not enrolled here")
            match topic.noun:
                case "presence":
                    self._presence(tx, row, payload)
                case "state":
                    self._state(tx, row, payload)
                case "tele":
                    self._tele(tx, row, payload)

    def _presence(self, tx: Connection, row: Row, payload: bytes) -> None:
        message = Presence.parse(open_report(payload, "presence", row["identity"]))
        self._check(row, message.fleet, message.device, message.incarnation)
        now = self._hub.now()
        if message.kind != "birth":
            if message.boot == row["boot"]:
                kind = "offline" if message.kind == "goodbye" else "gone"
                seen = {"last_seen": now} if message.kind == "goodbye" else {}
                rows.change(tx, devices, {"id": row["id"]}, presence=kind, presence_at=now, **seen)
            return
        away = now - row["presence_at"] if row["presence"] == "offline" and row["presence_at"] else 0
        agent = message.capabilities.get("agent")
        rows.change(
            tx, devices, {"id": row["id"]}, presence="online", presence_at=now, last_seen=now, boot=message.boot,
            capabilities=dict(message.capabilities), facts=dict(message.facts), paused_s=row["paused_s"] + max(0, away),
            agent=agent[:64] if isinstance(agent, str) else row["agent"],
        )  # fmt: skip
        answer(self._hub, tx, rows.get(tx, devices, id=row["id"]) or row, message.nonce)

    def _state(self, tx: Connection, row: Row, payload: bytes) -> None:
        state = State.parse(open_report(payload, "state", row["identity"]))
        self._check(row, state.fleet, state.device, state.incarnation)
        before = rows.get(tx, reports, device=row["id"])
        same = before is not None and before["incarnation"] == state.incarnation
        if before is not None and same and state.seq <= before["seq"]:
            raise Rejected("stale-report", f"report {state.seq} of {row['id']} is not newer than {before['seq']}")
        now = self._hub.now()
        rows.put(
            tx, reports, device=row["id"], incarnation=state.incarnation, boot=state.boot, seq=state.seq, counter=state.counter,
            received=now, slots={name: slot.payload() for name, slot in state.slots.items()}, counters=dict(state.counters),
        )  # fmt: skip
        self._seen(tx, row)
        observe(self._hub, tx, state)
        if state.command > row["command"]:
            rows.change(tx, devices, {"id": row["id"]}, command=state.command)
        if state.outcomes:
            known = {**row, "command": max(row["command"], state.command)}
            acknowledge(self._hub, tx, known, max(outcome.order for outcome in state.outcomes))
        if state.counter > row["counter"]:
            audit.write(tx, now, "ingest", "counter-adopted", row["id"], f"{row['counter']} -> {state.counter}")
            adopt(self._hub, tx, row, state.counter)

    def _tele(self, tx: Connection, row: Row, payload: bytes) -> None:
        body = open_tele(payload, row["identity"])
        window = SketchWindow.from_bytes(body)
        rows.add(
            tx, windows, device=row["id"], boot=window.boot.hex(), seq=window.seq, release8=window.model.hex(),
            profile8=window.profile.hex(), started_ms=window.start_ms, received=self._hub.now(), body=body,
        )  # fmt: skip
        self._seen(tx, row)

    def _seen(self, tx: Connection, row: Row) -> None:
        """Any message of a device shows that it is there, whatever its will said."""
        again = {"presence": "online", "presence_at": self._hub.now()} if row["presence"] in ("gone", "unknown") else {}
        rows.change(tx, devices, {"id": row["id"]}, last_seen=self._hub.now(), **again)

    def _check(self, row: Row, fleet: str, device: str, incarnation: int) -> None:
        if fleet != self._hub.settings.fleet or device != row["id"]:
            raise Rejected("wrong-device", f"signed for {fleet}/{device}, sent as {row['id']}")
        if incarnation != row["incarnation"]:
            raise Rejected("incarnation", f"{row['id']} speaks as incarnation {incarnation}, known is {row['incarnation']}")
