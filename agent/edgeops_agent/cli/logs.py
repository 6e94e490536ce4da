"""`edgeops-agent logs`: what the agent has said, from its own folder; no journal is needed."""

import argparse
import re
from collections import deque
from collections.abc import Callable
from typing import Any

from edgeops.wire.errors import Misuse

from ..shell.logbook import Logbook
from ..shell.logline import LEVELS, Line
from .place import as_its_owner
from .show import now, say

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
USUAL = 100


def add_to(commands: Any) -> None:
    """The command."""
    reading = commands.add_parser(
        "logs", help="what the agent has said, newest last",
        description="Show the newest lines of the agent's log, about 1 MB of which are kept in its folder.\n"
        "--json gives them as they are kept: one JSON object a line with ts, level, event, msg and fields.",
        epilog="edgeops-agent logs -f --since 10m --level warn",
    )  # fmt: skip
    reading.add_argument("-f", "--follow", action="store_true", help="go on with new lines until Ctrl-C")
    reading.add_argument("-n", "--lines", type=_count, default=USUAL, metavar="N", help="at most so many (default: %(default)s)")
    reading.add_argument("--since", type=_age, metavar="AGE", help="none older than this by the device's clock: 30s, 10m, 2h, 7d")
    reading.add_argument("--level", choices=LEVELS, default=LEVELS[0], help="none less grave than this (default: %(default)s)")
    reading.add_argument("--event", metavar="EVENT", help="only this kind of event, such as update or link")
    reading.set_defaults(act=_logs)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 10**6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of lines")
    return int(text)


def _age(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no age; write 30s, 10m, 2h or 7d")
    return int(found[1]) * UNITS[found[2]]


def _logs(options: argparse.Namespace) -> int:
    as_its_owner(options.state)
    book = Logbook(options.state)
    if not (options.follow or book.path.exists() or book.older.exists()):
        text = f"{book.path} is not there: no agent has run on this folder yet, or --state should name another one"
        raise Misuse("no-log", text)
    wanted, write = _wanted(options), _writer(options)
    waiting: deque[Line] | None = deque(maxlen=options.lines)
    for line in book.follow():
        if waiting is None:
            if line is not None and wanted(line):
                write(line)
        elif line is not None:
            waiting.extend([line] if wanted(line) else [])
        else:
            for older in waiting:
                write(older)
            waiting = None
            if not options.follow:
                return 0
    return 0


def _wanted(options: argparse.Namespace) -> Callable[[Line], bool]:
    since = now() - options.since if options.since is not None else float("-inf")
    levels = LEVELS[LEVELS.index(options.level) :]
    return lambda line: line.at >= since and line.level in levels and options.event in (None, line.event)


def _writer(options: argparse.Namespace) -> Callable[[Line], None]:
    if options.json:
        return lambda line: say(line.json())
    return lambda line: say(line.shown("%Y-%m-%d %H:%M:%S"))
