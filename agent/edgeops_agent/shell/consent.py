"""What a person at the device has said of an order that waits for it: `consent/SLOT.json`, written by `edgeops-agent approve|deny`.

An answer is for one order of one epoch and for one release: it never covers another one, and what cannot be read is no answer.
"""

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from edgeops.wire.conditions import CONSENT, about
from edgeops.wire.fields import ID

from ..core.slot import Slot
from .disk import refusals, write_whole
from .files import DISK, PRIVATE, Files

VERDICTS = {"approve": "yes", "deny": "no"}
MOST_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: `verdict` is approve or deny, `at` Unix seconds by the device's own clock."""

    epoch: int
    order: int
    release: str
    verdict: str
    at: int
    reason: str = ""


class Consent:
    """The answers kept in the agent's folder `root`."""

    def __init__(self, root: Path, files: Files = DISK) -> None:
        self._folder, self._files = root / "consent", files

    def of(self, slot: str, epoch: int, order: int, release: str) -> str:
        """"yes", "no", or "" while nobody has answered this very order; the value of the fact `consent`."""
        answer = self.answer(slot)
        if answer is None or (answer.epoch, answer.order, answer.release) != (epoch, order, release):
            return ""
        return VERDICTS[answer.verdict]

    def answer(self, slot: str) -> Answer | None:
        """The newest answer for `slot`, whatever it was for; None when there is none that can be read."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            read = json.loads(self._files.read(self._folder / f"{slot}.json", 0, MOST_BYTES))
            answer = Answer(**read)
            numbers = type(answer.epoch) is int and type(answer.order) is int
            return answer if numbers and answer.verdict in VERDICTS else None
        return None

    def give(self, slot: str, answer: Answer) -> None:
        """Keep an answer, durably; raises Unfit (disk)."""
        if not ID.fullmatch(slot) or answer.verdict not in VERDICTS:
            raise ValueError(slot, answer.verdict)
        with refusals("consent/"):
            if self._files.look(self._folder) is None:
                self._files.make(self._folder)
                self._files.sync(self._folder.parent)
        write_whole(self._folder / f"{slot}.json", json.dumps(asdict(answer), sort_keys=True).encode(), PRIVATE, self._files)


def asked_by(slot: Slot) -> tuple[str, ...]:
    """The terms of a person's consent that the slot needs in its phase, whether they were given or not."""
    return about(slot.target.gate(slot.phase), CONSENT) if slot.target and slot.phase != "idle" else ()
