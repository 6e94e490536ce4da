"""One line of the agent's log: when, how grave, which kind of event, a sentence for people, fields for programs."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

Value = str | int | float | bool | None

LEVELS = ("info", "warn", "error")
EVENTS: Mapping[str, str] = {
    "start": "the agent serves; with its process, addresses and version",
    "stop": "the agent ends, asked to",
    "link": "connected to the manager's broker, or not any more, and why",
    "order": "the manager orders something of a slot",
    "refused": "a message or document was not believed, with its reason",
    "update": "a slot goes from one phase to the next, or an order has ended: committed, rolled-back, failed …",
    "facts": "something the device's owner left in facts.d cannot be believed",
    "consent": "a person at the device has approved or denied an order",
    "worker": "an inference worker has started or ended",
    "model": "what is committed does not run, or runs again",
    "disk": "the disk refuses what must be kept, or takes it again",
    "renewal": "the certificate was renewed",
    "upkeep": "the manager is asked over HTTPS for what a device must not be without, or could not be",
    "internal": "something nobody thought of; a bug worth reporting",
    "lost": "lines of the log that could not be written, and how many",
}  # fmt: skip
MOST_TEXT, MOST_FIELD = 3000, 500
JOURNALD = {"info": 6, "warn": 4, "error": 3}


@dataclass(frozen=True, slots=True)
class Line:
    """`at` is Unix seconds by the device's own clock; `event` is a word of EVENTS."""

    at: float
    level: str
    event: str
    text: str
    fields: Mapping[str, Value] = field(default_factory=dict)

    def json(self) -> str:
        """As one line of JSON, in ASCII: a terminal finds nothing in it to obey."""
        fields = {name: value[:MOST_FIELD] if isinstance(value, str) else value for name, value in self.fields.items()}
        when = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return json.dumps({"ts": when, "level": self.level, "event": self.event, "msg": self.text[-MOST_TEXT:], **fields})

    def shown(self, clock: str) -> str:
        """For people; `clock` is the format of the time. What follows the first line is indented, so that none can be forged."""
        first, *more = self.text[-MOST_TEXT:].splitlines() or [""]
        head = f"{time.strftime(clock, time.localtime(self.at))} {self.level:<5} {self.event:<7} {printable(first)}"
        return "\n    ".join([head, *map(printable, more)])

    def journald(self) -> str:
        """For systemd's journal, which knows the time itself and the level by its number (sd-daemon)."""
        first, *more = self.text[-MOST_TEXT:].splitlines() or [""]
        return "\n".join(f"<{JOURNALD[self.level]}>{printable(one)}" for one in (f"{self.event}: {first}", *more))


def printable(text: str) -> str:
    """`text` without anything a terminal would obey: some of it was chosen by whoever sent us nonsense."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def read(text: str) -> Line | None:
    """A line that `json` wrote; None for what a power cut or a full disk has left of one."""
    try:
        data = json.loads(text)
        fields = {name: value for name, value in data.items() if name not in ("ts", "level", "event", "msg")}
        at = datetime.fromisoformat(data["ts"]).timestamp()
        line = Line(at, str(data["level"]), str(data["event"]), str(data["msg"]), fields)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
    return line if line.level in LEVELS else None
