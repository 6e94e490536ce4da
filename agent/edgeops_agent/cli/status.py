"""`edgeops-agent status`: what this device runs, what it is at, what it waits for, how the last order ended."""

import argparse
import contextlib
import json
import sys
import time
from typing import Any

from ..core.slot import Build, Slot
from ..shell import live
from ..shell.credentials import read_pair
from ..shell.disk import StateFolder
from ..shell.facts import facts
from ..shell.identity import Paths
from ..shell.reporting import report_of
from .place import as_its_owner
from .show import ago, answer, now, pairs, say, size, span, table, when

WATCH_S = 1.0
COLUMNS = ("slot", "runs", "variant", "phase", "at", "waits for", "previous", "last order")


def add_to(commands: Any) -> None:
    """The command."""
    looking = commands.add_parser(
        "status", help="what this device runs, what it waits for, how the last order ended",
        description="Show the device, its agent and its slots, from the record and from the agent if it runs.\n"
        "Ends with 0 either way: `running` in --json says which, and the init system knows too.",
        epilog="edgeops-agent status --watch",
    )  # fmt: skip
    looking.add_argument("--watch", action="store_true", help="again whenever something has changed, until Ctrl-C")
    looking.set_defaults(act=_status)


def _status(options: argparse.Namespace) -> int:
    as_its_owner(options.state)
    folder, shown = StateFolder(options.state), ""
    while True:
        found = look(folder)
        if (told := json.dumps({**found, "disk_free": 0, "now": 0})) != shown:
            shown = told
            _show(options, found)
        if not options.watch:
            return 0
        time.sleep(WATCH_S)


def look(folder: StateFolder) -> dict[str, Any]:
    """Everything that can be said now; raises Misuse("not-enrolled" | "state-folder"), Rejected("record-lost")."""
    record, said = folder.load(), live.ask(folder.root)
    running, pair = said or {}, read_pair(Paths(folder.root))
    parts = running.get("slots", {})
    return {
        "device": record.trust.device, "fleet": record.trust.fleet, "incarnation": record.trust.incarnation,
        "order": record.trust.counter, "unsure": record.unsure, "running": said is not None, "now": int(now()),
        "agent": {name: running[name] for name in ("pid", "since", "agent") if name in running},
        "manager": running.get("manager", {"connected": False}),
        "certificate": int(pair.certificate.not_valid_after_utc.timestamp()) if pair else None,
        "endpoint": _endpoint(folder) if said else {}, "disk_free": facts(folder.root).get("disk_free"),
        "slots": {name: {**_slot(slot), **parts.get(name, {})} for name, slot in record.slots.items()},
        "counters": dict(record.counters),
    }  # fmt: skip


def _slot(slot: Slot) -> dict[str, Any]:
    target = slot.target if slot.phase != "idle" else None
    return {
        **report_of(slot).payload(), "order": slot.order, "previous": _called(slot.previous),
        "at": (_called(target.build) or "no model") if target else "", "waits": list(target.gate(slot.phase)) if target else [],
    }  # fmt: skip


def _called(build: Build | None) -> str:
    return f"{build.model}:{build.version}" if build else ""


def _endpoint(folder: StateFolder) -> dict[str, str]:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found = json.loads((folder.root / "endpoint.json").read_bytes())
        return {name: str(found[name]) for name in ("http", "unix") if name in found}
    return {}


def _show(options: argparse.Namespace, found: dict[str, Any]) -> None:
    if options.json:
        answer(found)
        return
    if options.watch and sys.stdout.isatty():
        say("\x1b[H\x1b[2J" + when(now()))
    pairs(_head(found))
    say()
    rows = [_row(name, slot) for name, slot in found["slots"].items()]
    if rows:
        table(COLUMNS, rows)
    else:
        say("no model was ordered yet")
    told = {name: str(count) for name, count in sorted(found["counters"].items()) if count}
    if told:
        say()
        pairs(told)


def _head(found: dict[str, Any]) -> dict[str, str]:
    agent, manager = found["agent"], found["manager"]
    running = f"running for {ago(agent['since'])}, process {agent['pid']}, version {agent['agent']}" if agent else ""
    link = f"connected to {manager.get('url')}" if manager["connected"] else "not connected"
    if not manager["connected"] and manager.get("why"):
        link += f": {manager['why']}"
    until = found["certificate"]
    left = f"{when(until)}, {span(until - now())} left" if until and until > now() else f"{when(until)}, over" if until else "none"
    return {
        "device": f"{found['device']} of fleet {found['fleet']}, incarnation {found['incarnation']}, newest order {found['order']}",
        "agent": running or "not running; start it with `edgeops-agent run` or your init system",
        "manager": link if found["running"] else "",
        "record": "was damaged; no order is taken until the manager has answered" if found["unsure"] else "",
        "certificate": f"until {left}" if until else "none that can be used; a new one is asked for",
        "endpoint": ", ".join(found["endpoint"].values()),
        "disk": f"{size(found['disk_free'])} free" if found["disk_free"] is not None else "",
        "confined": ", ".join(_confined(found["slots"])),
    }  # fmt: skip


def _confined(slots: dict[str, Any]) -> list[str]:
    """What keeps the workers to themselves, by name; what does not hold is marked."""
    found = [slot["confined"] for slot in slots.values() if slot.get("confined")]
    names = sorted({name for each in found for name in each})
    return [name if all(each.get(name) for each in found) else f"NOT {name}" for name in names]


def _row(name: str, slot: dict[str, Any]) -> tuple[str, ...]:
    last = " ".join(part for part in (slot.get("verdict", ""), slot.get("reason", "")) if part)
    runs = f"{slot['model']}:{slot['version']}" if slot.get("model") else "no model"
    return name, runs, slot.get("variant", ""), slot["phase"], slot["at"], ", ".join(slot.get("waits", ())), slot["previous"], last


