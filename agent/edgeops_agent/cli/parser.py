"""The whole command line: every command says what it does, with an example, and which function does it."""

import argparse
from pathlib import Path

from edgeops import __version__

from . import consent, doctor, enroll, logs, run, status
from .place import DEFAULT_STATE

EXIT_CODES = {
    0: "done; for `run`: stopped by Ctrl-C or SIGTERM; for `doctor`: nothing that keeps the agent from its work",
    1: "a bug",
    2: "misuse: wrong arguments, a folder that holds no enrolled device, nothing to approve",
    3: "rejected: a document, a damaged record, a manager that is not the token's",
    4: "unreachable: no manager answers, or an operator must approve first",
    5: "unfit: the disk refuses; for `doctor`: something fails",
    130: "interrupted with Ctrl-C",
}
NOUNS = (enroll, run, status, logs, doctor, consent)


def build_parser() -> argparse.ArgumentParser:
    """The parser; each command's options carry the function `act`."""
    parser = argparse.ArgumentParser(
        "edgeops-agent", description="Run models on this device as an edgeops manager asks.", epilog=_codes(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"edgeops-agent {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for noun in NOUNS:
        noun.add_to(commands)
    for command in commands.choices.values():
        command.formatter_class = argparse.RawDescriptionHelpFormatter
        command.epilog = f"example:\n  {command.epilog}\n\n{_codes()}"
        command.add_argument("--state", type=Path, default=DEFAULT_STATE, help="the agent's folder (default: %(default)s)")
        command.add_argument("--json", action="store_true", help="JSON on standard output, and nothing else there")
    return parser


def _codes() -> str:
    return "exit codes:\n" + "\n".join(f"  {code:<4} {means}" for code, means in EXIT_CODES.items())
