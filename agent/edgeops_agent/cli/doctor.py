"""`edgeops-agent doctor`: is there anything that keeps this agent from its work?"""

import argparse
from dataclasses import asdict
from typing import Any

from ..shell.doctor import examine
from ..shell.logline import printable
from .place import as_its_owner
from .show import answer, now, say, table


def add_to(commands: Any) -> None:
    """The command."""
    examining = commands.add_parser(
        "doctor", help="look for what keeps the agent from its work; changes nothing",
        description="Check folder, record, keys, disk, clock, runtime and the way to the manager: ok, warn or fail, and\n"
        "what to do next. Ends with 5 when a check fails, with 0 otherwise. It may run beside the agent.",
        epilog="edgeops-agent doctor",
    )  # fmt: skip
    examining.set_defaults(act=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    as_its_owner(options.state)
    found = list(examine(options.state, now()))
    failed = any(one.level == "fail" for one in found)
    if options.json:
        answer({"ok": not failed, "findings": [asdict(one) for one in found]})
    else:
        table(("check", "", "detail"), [(one.check, one.level, one.detail) for one in found])
        for at, one in enumerate(one for one in found if one.advice):
            say(("" if at else "\nwhat to do\n") + f"  {one.check}: {printable(one.advice)}")
    return 5 if failed else 0
