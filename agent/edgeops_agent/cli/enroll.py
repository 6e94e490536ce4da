"""`edgeops-agent enroll | identity`: this device enters a fleet."""

import argparse
import sys
from typing import Any

from ..shell.enrolment import Patience, enroll, make_identity
from .place import DEFAULT_STATE
from .show import answer, say


def add_to(commands: Any) -> None:
    """The commands."""
    joining = commands.add_parser(
        "enroll", help="enter a fleet with what `edgeops device register` printed",
        description="Make keys on this device and get it a certificate. Where an operator must approve it first, this waits and\n"
        "asks again; it may be ended with Ctrl-C or killed at any time, and the same command goes on.",
        epilog="edgeops-agent enroll edgeops1.…",
    )  # fmt: skip
    joining.add_argument("token", metavar="TOKEN", help="the one-time token or the join line, or - to read it from standard input")
    joining.add_argument("--no-wait", action="store_true", help="end with exit code 4 where an operator must approve first")
    joining.set_defaults(act=_enroll)
    naming = commands.add_parser(
        "identity", help="make this device's identity key if it has none, and print its fingerprint",
        description="For `edgeops device register --from devices.csv`, column `fingerprint`: such a device needs no secret.",
        epilog="edgeops-agent identity",
    )  # fmt: skip
    naming.set_defaults(act=_identity)


def _enroll(options: argparse.Namespace) -> int:
    token = sys.stdin.read() if options.token == "-" else options.token  # noqa: S105
    waiting = Patience(lambda text: print(text, file=sys.stderr, flush=True))
    trust = enroll(token, options.state) if options.no_wait else enroll(token, options.state, waiting.wait)
    if options.json:
        told = {"device": trust.device, "fleet": trust.fleet, "incarnation": trust.incarnation, "state": str(options.state)}
        answer(told)
        return 0
    where = "" if options.state == DEFAULT_STATE else f" --state {options.state}"
    say(f"enrolled {trust.device} in fleet {trust.fleet}; now: edgeops-agent run{where}")
    return 0


def _identity(options: argparse.Namespace) -> int:
    found = make_identity(options.state)
    if options.json:
        answer({"fingerprint": found, "state": str(options.state)})
    else:
        say(found)
    return 0
