"""Messages of devices: verified with the device's identity key, turned into stored state and events.

Messages that wait together share one transaction, since a commit costs more than all the rest; each has its own savepoint in it.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from edgeops.sketch.window import MAX_BYTES, SketchWindow
from edgeops.store import audit, rows
from edgeops.store.rows import Row
from edgeops.store.tables import devices, reports, windows
from edgeops.wire import topics
from edgeops.wire.errors import EdgeopsError, Rejected
from edgeops.wire.messages import Presence, State, Want, open_report, open_tele
from edgeops.wire.topics import DeviceTopic

from . import clones
from .deliver import Delivery
from .desire import DAY_S, adopt, answer, command, counting, counts_with_us, lacking
from .hub import Hub
from .outcomes import observe

_LOG = logging.getLogger("edgeops.ingest")
# What an honest device stays below by far; the largest state names 16 slots and 256 outcomes.
MOST_BYTES = {"presence": 32 << 10, "state": 512 << 10, "tele": 64 + MAX_BYTES, "want": 64 << 10, "ack": 8 << 10, "log": 8 << 10}
# Halfway to the largest integer a document may hold: above it a device could leave its own manager no number to go on with.
MOST_COUNTER = 1 << 52
MOST_COUNT = 1 << 32
ADOPT_S = 60
BEHIND_S = 10
# A device back from a long absence sends its spool of up to 2,000 windows at once, then one every few seconds.
WINDOWS_AT_ONCE, WINDOWS_PER_S = 2_500, 1


class Ingest:
    """Takes messages of one thread; what is refused is counted by reason and changes nothing."""

    def __init__(self, hub: Hub, delivery: Delivery) -> None:
        self._hub, self._delivery = hub, delivery
        self._counting = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._windows: dict[str, tuple[int, int]] = {}
        self._adopted: dict[str, int] = {}
        self._behind: dict[str, tuple[tuple[int, int], int]] = {}
        self._told: tuple[int, set[tuple[str, str]]] = (0, set())

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
        self.take_all([(topic, payload)])

    def take_all(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Process messages in order and in one transaction, of which a refused one takes back its own part only."""
        waiting = []
        for topic, payload in messages:
            with self._refusing(topic):
                parsed = _checked(topic, payload)
                if parsed.noun == "want":
                    self._delivery.want(parsed.device, Want.decode(payload))
                if parsed.noun in STORED:
                    waiting.append((topic, parsed, payload))
                else:
                    self._count(parsed.noun)
        if not waiting:
            return
        with self._hub.store.write() as tx:
            for topic, parsed, payload in waiting:
                with self._refusing(topic):
                    with tx.begin_nested():
                        refusal = self._dispatch(tx, parsed, payload)
                    if refusal:
                        raise refusal
                    self._count(parsed.noun)

    @contextmanager
    def _refusing(self, topic: str) -> Iterator[None]:
        """Count and log what is refused; one bad message must not take others with it."""
        try:
            yield
        except EdgeopsError as error:
            self._count(f"refused.{error.reason}")
            self._tell(topic, error)
        except SQLAlchemyError:
            raise
        except Exception:
            self._count("refused.internal")
            _LOG.exception("a message on %s could not be processed", topic[:256])

    def _tell(self, topic: str, error: EdgeopsError) -> None:
        """Log a refusal, each kind once a minute for a topic: whoever sends rubbish must not fill the disk with our log."""
        minute = self._hub.now() // 60
        if self._told[0] != minute or len(self._told[1]) > 10_000:
            self._told = minute, set()
        if (topic, error.reason) not in self._told[1]:
            self._told[1].add((topic, error.reason))
            _LOG.warning("refused a message on %s: %s", topic[:256], error)

    def _dispatch(self, tx: Connection, topic: DeviceTopic, payload: bytes) -> Rejected | None:
        """Process one message. A refusal that is raised takes back what was stored, one that is returned keeps it."""
        row = rows.get(tx, devices, id=topic.device)
        if row is not None and row["status"] == "decommissioned":
            return self._after_the_end(tx, row)
        if row is not None and row["status"] == "clone":
            raise Rejected("quarantine", f"{topic.device} is in quarantine: two devices speak as it; see `edgeops device show`")
        if row is None or row["status"] != "enrolled" or row["identity"] is None:
            raise Rejected("unknown-device", f"{topic.device} is not enrolled here")
        return STORED[topic.noun](self, tx, row, payload)

    def _after_the_end(self, tx: Connection, row: Row) -> Rejected:
        """Somebody still sends in the name of a decommissioned device: worth one line in the audit log, and no more."""
        if row["last_seen"] is None or row["last_seen"] <= row["presence_at"]:
            now = max(self._hub.now(), row["presence_at"] + 1)
            rows.change(tx, devices, {"id": row["id"]}, last_seen=now)
            audit.write(tx, self._hub.now(), "ingest", "device-after-end", row["id"], "a message in its name came and was dropped")
        return Rejected("decommissioned", f"{row['id']} was decommissioned; find out who still sends in its name")

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
        if message.seq <= (row["born"] or 0) and (message.seq or row["born"]):
            raise Rejected("stale-birth", f"birth {message.seq} of {row['id']} is not newer than {row['born']}")
        away = now - row["presence_at"] if row["presence"] == "offline" and row["presence_at"] else 0
        agent = message.capabilities.get("agent")
        rows.change(
            tx, devices, {"id": row["id"]}, presence="online", presence_at=now, last_seen=now, boot=message.boot,
            capabilities=dict(message.capabilities), facts=dict(message.facts), paused_s=row["paused_s"] + max(0, away),
            agent=agent[:64] if isinstance(agent, str) else row["agent"], documents=dict(message.documents) or None,
            born=message.seq,
        )  # fmt: skip
        answer(self._hub, tx, rows.get(tx, devices, id=row["id"]) or row, message.nonce)

    def _state(self, tx: Connection, row: Row, payload: bytes) -> Rejected | None:
        state = State.parse(open_report(payload, "state", row["identity"]))
        self._check(row, state.fleet, state.device, state.incarnation)
        row = counting(self._hub, tx, row)
        _check_counters(row, state)
        if refusal := clones.listen(self._hub, tx, row, state):
            return refusal
        before = rows.get(tx, reports, device=row["id"])
        same = before is not None and before["incarnation"] == state.incarnation
        if before is not None and same and state.seq <= before["seq"]:
            return Rejected("stale-report", f"report {state.seq} of {row['id']} is not newer than {before['seq']}")
        now = self._hub.now()
        rows.put(
            tx, reports, device=row["id"], incarnation=state.incarnation, boot=state.boot, seq=state.seq, counter=state.counter,
            received=now, slots={name: slot.payload() for name, slot in state.slots.items()}, counters=dict(state.counters),
        )  # fmt: skip
        self._seen(tx, row)
        if state.documents and state.documents != row["documents"]:
            row = {**row, "documents": dict(state.documents)}
            rows.change(tx, devices, {"id": row["id"]}, documents=row["documents"])
        observe(self._hub, tx, state, before["received"] if before is not None and same else 0)
        self._counters(tx, row, state)
        return None

    def _counters(self, tx: Connection, row: Row, state: State) -> None:
        """Acknowledge outcomes, and go on from where the device says it is, if it counts in our epoch."""
        now, ours = self._hub.now(), counts_with_us(self._hub, row)
        if ours and state.command > row["command"]:
            rows.change(tx, devices, {"id": row["id"]}, command=state.command)
        if state.outcomes:
            command(self._hub, tx, row["id"], "ack", state.seq)
        if ours and state.counter > row["counter"] and self._adopted.get(row["id"], 0) + ADOPT_S <= now:
            self._adopted[row["id"]] = now
            audit.write(tx, now, "ingest", "counter-adopted", row["id"], f"{row['counter']} -> {state.counter}")
            adopt(self._hub, tx, row, state.counter)
        self._chase(tx, row, state.counter)

    def _chase(self, tx: Connection, row: Row, counter: int) -> None:
        """Send again to a device what by its report it still lacks after a while, orders or documents: brokers lose messages."""
        device, now = row["id"], self._hub.now()
        missing = len(lacking(self._hub, row)) if row["documents"] else 0
        newest = (row["counter"], missing)
        if counter >= row["counter"] and not missing:
            self._behind.pop(device, None)
            return
        known, since = self._behind.get(device, ((0, 0), now))
        if known == newest and since + BEHIND_S <= now:
            answer(self._hub, tx, row, "")
            since = now
        self._behind[device] = (newest, since if known == newest else now)

    def _tele(self, tx: Connection, row: Row, payload: bytes) -> None:
        body = open_tele(payload, row["identity"])
        window = SketchWindow.from_bytes(body)
        tally = window.tally
        if max(tally.n, tally.calls, tally.errors, tally.invalid, tally.dropped, tally.latency.count) > MOST_COUNT:
            raise Rejected("absurd-count", f"{row['id']} counted more than {MOST_COUNT} in one window")
        self._pace(row["id"])
        now = self._hub.now()
        # One from before the device was registered was measured by a clock that nobody has set yet: it says nothing of its age.
        if row["created"] <= window.start_ms // 1000 < now - self._hub.settings.keep_windows_days * DAY_S:
            raise Rejected("stale-window", f"a window of {row['id']} is older than what is kept; it may have been counted before")
        # It does not show that the device is there: it bears no number that a broker could not repeat once we have forgotten it.
        rows.add(
            tx, windows, device=row["id"], boot=window.boot.hex(), seq=window.seq, release8=window.model.hex(),
            profile8=window.profile.hex(), started_ms=window.start_ms, received=now, body=body,
        )  # fmt: skip

    def _pace(self, device: str) -> None:
        """Raise Rejected("too-many-windows") for a device that sends them faster than it could have measured them."""
        now = self._hub.now()
        left, since = self._windows.get(device, (WINDOWS_AT_ONCE, now))
        left = min(WINDOWS_AT_ONCE, left + WINDOWS_PER_S * max(0, now - since))
        self._windows[device] = max(0, left - 1), now
        if left < 1:
            raise Rejected("too-many-windows", f"{device} sends more than {WINDOWS_PER_S} windows a second for long")

    def _seen(self, tx: Connection, row: Row) -> None:
        """A report that is new shows that the device is there, whatever its will said."""
        again = {"presence": "online", "presence_at": self._hub.now()} if row["presence"] in ("gone", "unknown") else {}
        rows.change(tx, devices, {"id": row["id"]}, last_seen=self._hub.now(), **again)

    def _check(self, row: Row, fleet: str, device: str, incarnation: int) -> None:
        if fleet != self._hub.settings.fleet or device != row["id"]:
            raise Rejected("wrong-device", f"signed for {fleet}/{device}, sent as {row['id']}")
        if incarnation != row["incarnation"]:
            raise Rejected("incarnation", f"{row['id']} speaks as incarnation {incarnation}, known is {row['incarnation']}")


def _check_counters(row: Row, state: State) -> None:
    """Raise Rejected("absurd-counter") for numbers no honest device has, unless we have issued them."""
    for said, issued in ((state.counter, row["counter"]), (state.command, row["command"])):
        if said >= MOST_COUNTER and said > issued:
            raise Rejected("absurd-counter", f"{row['id']} says it has seen {said} documents, we have issued {issued}")


def _checked(topic: str, payload: bytes) -> DeviceTopic:
    """The topic of a message of bearable size; raises Rejected("bad-topic" | "too-large")."""
    parsed = topics.parse(topic)
    if not isinstance(parsed, DeviceTopic) or parsed.direction != "up":
        raise Rejected("bad-topic", f"not a topic of a device: {topic[:128]!r}")
    if len(payload) > MOST_BYTES[parsed.noun]:
        raise Rejected("too-large", f"a {parsed.noun} of {len(payload)} bytes; {MOST_BYTES[parsed.noun]} are allowed")
    return parsed


STORED: dict[str, Callable[[Ingest, Connection, Row, bytes], Rejected | None]] = {
    "presence": Ingest._presence, "state": Ingest._state, "tele": Ingest._tele,
}  # fmt: skip
