"""`edgeops-agent approve | deny`: a person at the device answers for an order that waits for it."""

import argparse
import sys
from dataclasses import dataclass, replace
from typing import Any

from edgeops.wire.errors import Misuse
from edgeops.wire.trust import current_root

from ..core.record import Record
from ..core.slot import WORKING, Build, Slot
from ..shell import live
from ..shell.consent import VERDICTS, Answer, Consent, asked_by
from ..shell.disk import StateFolder
from ..shell.logbook import Logbook
from ..shell.logline import Line
from .place import as_its_owner
from .show import ago, answer, now, pairs, say, when

LEAST_DIGEST, MOST_REASON = 8, 200
NEXT = {"waiting": "it is fetched", "fetch": "it is fetched", "ready": "it takes the calls, on trial", "proven": "it is committed"}


def add_to(commands: Any) -> None:
    """The commands."""
    approving = commands.add_parser(
        "approve", help="let an order go on that waits for a person at the device",
        description="Say yes to the order that waits for consent; it is shown first, and on a terminal you are asked.\n"
        "The answer holds for this very order, a newer one asks again. It is kept: the agent need not run.",
        epilog="edgeops-agent approve digits:2",
    )  # fmt: skip
    denying = commands.add_parser(
        "deny", help="end an order that waits for a person at the device",
        description="Say no to the order that waits for consent: it ends as denied, what runs goes on, the manager is told.",
        epilog="edgeops-agent deny --yes --reason 'in use until Friday'",
    )  # fmt: skip
    for parser, verdict in ((approving, "approve"), (denying, "deny")):
        parser.add_argument("what", nargs="?", metavar="RELEASE", help="what is meant: model:version, or how its digest begins")
        parser.add_argument("--slot", help="the slot meant (default: the one that waits)")
        parser.add_argument("--yes", action="store_true", help="do not ask")
        parser.set_defaults(act=_answer, verdict=verdict, reason="")
    denying.add_argument("--reason", default="", help="why, for the log of this device")


@dataclass(frozen=True, slots=True)
class Waiting:
    """An order that asks for a person: where, in which phase, for what; `said` is yes or no where somebody has answered it."""

    slot: str
    phase: str
    epoch: int
    order: int
    rollout: str
    build: Build
    since: float | None
    said: str

    @property
    def called(self) -> str:
        """model:version."""
        return f"{self.build.model}:{self.build.version}"

    def payload(self) -> dict[str, Any]:
        """For programs."""
        return {
            "slot": self.slot, "phase": self.phase, "order": self.order, "rollout": self.rollout, "model": self.build.model,
            "version": self.build.version, "variant": self.build.variant, "release": self.build.release, "since": self.since,
        }  # fmt: skip


def _answer(options: argparse.Namespace) -> int:
    as_its_owner(options.state)
    record, consent = StateFolder(options.state).load(), Consent(options.state)
    meant = _meant(options, record, consent)
    again = meant.said == VERDICTS[options.verdict]
    if not options.json:
        _show(meant)
    if not again:
        _confirm(options, meant)
        _give(options, meant, consent)
    runs = live.ask(options.state) is not None
    if options.json:
        answer({**meant.payload(), "verdict": options.verdict, "again": again, "running": runs})
    else:
        said = {"approve": "approved", "deny": "denied"}[options.verdict]
        say(f"{said}{' already' if again else ''}: {_outlook(options.verdict, meant, runs)}")
    return 0


def _give(options: argparse.Namespace, meant: Waiting, consent: Consent) -> None:
    """Keep the answer, then note it in the agent's log."""
    reason = "".join(char for char in options.reason if char.isprintable())[:MOST_REASON]
    consent.give(meant.slot, Answer(meant.epoch, meant.order, meant.build.release, options.verdict, int(now()), reason))
    text = f"slot {meant.slot}: somebody here said {VERDICTS[options.verdict]} to {meant.called}"
    fields = {**meant.payload(), "verdict": options.verdict, "reason": reason}
    Logbook(options.state).take(Line(now(), "info", "consent", f"{text}: {reason}" if reason else text, fields))


def _outlook(verdict: str, meant: Waiting, runs: bool) -> str:
    then = "the order ends, what runs goes on" if verdict == "deny" else f"{NEXT[meant.phase]} once nothing else is waited for"
    return then if runs else f"{then}; the agent does not run now"


def waiting(record: Record, consent: Consent, root: Logbook) -> list[Waiting]:
    """Everything here that asks for a person now."""
    epoch, found = current_root(record.trust).epoch, []
    for name, slot in sorted(record.slots.items()):
        target = slot.target
        if target and target.build and asked_by(slot):
            said = consent.of(name, epoch, target.order, target.build.release)
            since = _since(root, name, target.order, slot.phase)
            found.append(Waiting(name, slot.phase, epoch, target.order, target.rollout, target.build, since, said))
    return found


def _since(book: Logbook, slot: str, order: int, phase: str) -> float | None:
    """When the slot began to wait, as the log remembers it."""
    for line in book.lines():
        fields = line.fields
        if line.event == "update" and (fields.get("slot"), fields.get("order"), fields.get("phase")) == (slot, order, phase):
            return line.at
    return None


def _meant(options: argparse.Namespace, record: Record, consent: Consent) -> Waiting:
    """The one order that is meant; raises Misuse where it is none or not the one that was named."""
    every = waiting(record, consent, Logbook(options.state))
    found = [one for one in every if options.slot in (None, one.slot)]
    if not found:
        where = f"slot {options.slot}" if options.slot else "nothing here"
        is_there = options.slot is None or options.slot in record.slots
        raise Misuse("nothing-waits", f"{where} waits for nobody's consent; {_instead(record) if is_there else _slots(record)}")
    if len(found) > 1:
        raise Misuse("which-slot", f"several slots wait: {', '.join(one.slot for one in found)}; name one with --slot")
    if options.what and not _is(found[0], options.what):
        text = f"slot {found[0].slot} waits for consent to {found[0].called} (release {found[0].build.release[:12]}), not to"
        raise Misuse("not-that", f"{text} {options.what[:80]}")
    return found[0]


def _is(one: Waiting, what: str) -> bool:
    return what == one.called or (len(what) >= LEAST_DIGEST and one.build.release.startswith(what))


def _slots(record: Record) -> str:
    return f"slots here: {', '.join(sorted(record.slots)) or 'none'}"


def _instead(record: Record) -> str:
    """What goes on, for somebody who thought that he was asked."""
    told = "; ".join(f"slot {name}: {_doing(slot)}" for name, slot in sorted(record.slots.items()))
    return told or "no order has come yet"


def _doing(slot: Slot) -> str:
    target = slot.target
    if target is None or slot.phase == "idle":
        return "no order is at work"
    called = f"{target.build.model}:{target.build.version}" if target.build else "no model"
    terms, later = target.gate(slot.phase), any(map(asked_by, _later(slot)))
    waits = f", waiting for {', '.join(terms)}" if terms else ""
    return f"{called} is in phase {slot.phase}{waits}{'; it will ask for consent later' if later else ''}"


def _later(slot: Slot) -> list[Slot]:
    """The slot in each phase that may still come."""
    at = WORKING.index(slot.phase)
    return [replace(slot, phase=phase) for phase in WORKING[at + 1 :]]


def _show(one: Waiting) -> None:
    since = f"{when(one.since)}, {ago(one.since)} ago" if one.since is not None else ""
    pairs({
        "slot": one.slot, "model": one.called, "variant": one.build.variant, "release": one.build.release, "order": str(one.order),
        "rollout": one.rollout, "phase": one.phase, "waits since": since,
    })  # fmt: skip


def _confirm(options: argparse.Namespace, one: Waiting) -> None:
    """Ask on a terminal; elsewhere the answer must have been given with the command. Raises Misuse("not-confirmed")."""
    if options.yes:
        return
    if not sys.stdin.isatty() or options.json:
        raise Misuse("not-confirmed", f"nothing was said of {one.called}; where nobody can be asked, pass --yes")
    print(f"{options.verdict} {one.called} in slot {one.slot}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Misuse("not-confirmed", f"nothing was said of {one.called}")
