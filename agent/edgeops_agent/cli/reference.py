"""docs/agent.md from the parser itself: `python -m edgeops_agent.cli.reference > docs/agent.md`."""

import argparse
from collections.abc import Iterator

from ..shell.logline import EVENTS
from .parser import EXIT_CODES, build_parser

HEAD = """# The device's command line

Written by `python -m edgeops_agent.cli.reference > docs/agent.md`; a test fails when it is out of date.

Every command takes `--state DIR`, the agent's folder (default: `$EDGEOPS_AGENT_STATE`, else `~/.local/state/edgeops-agent`), and
`--json`: then standard output holds JSON only, and a failure is `{"error": {"reason", "message"}}`. `status`, `logs`, `doctor`,
`approve` and `deny` may be used by root: they act as the folder's user.

| exit code | means |
|---|---|
"""
LOG = """
## The log

Lines go to standard output and to `log/agent.log` in the agent's folder, which is put aside as `log/agent.log.1` at 512 KB, so that
about 1 MB is kept where nothing else keeps it. Each is `{"ts", "level", "event", "msg"}` and fields of its event; `level` is info,
warn or error. On a terminal they are text with the time; for systemd's journal text with the level as its number, so that
`journalctl -p warning` works; else JSON. A line that nobody takes at once is dropped, and an event `lost` says how many were.

| event | says |
|---|---|
"""


def commands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command with its parser, in the order of `--help`."""
    for action in build_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def document() -> str:
    """The whole page as markdown."""
    codes = "".join(f"| {code} | {means} |\n" for code, means in EXIT_CODES.items())
    events = "".join(f"| `{event}` | {means} |\n" for event, means in EVENTS.items())
    return HEAD + codes + "".join(_section(name, parser) for name, parser in commands()) + LOG + events


def _section(name: str, parser: argparse.ArgumentParser) -> str:
    example = (parser.epilog or "").splitlines()[1].strip()
    lines = ["", f"## edgeops-agent {name}", "", " ".join((parser.description or "").split()), "", "```sh", example, "```", ""]
    rows = [_row(action) for action in parser._actions if action.dest not in ("help", "state", "json")]
    return "\n".join([*lines, *(["| argument | meaning |", "|---|---|", *rows, ""] if rows else [])])


def _row(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else action.metavar or "\\|".join(map(str, action.choices or ())) or action.dest.upper()
    words = [f"{word} {value}".strip() for word in action.option_strings] or [str(value)]
    told = (action.help or "").replace("%(default)s", str(action.default)).replace("|", "\\|")
    return f"| {', '.join(f'`{word}`' for word in words)} | {told} |"


if __name__ == "__main__":
    print(document(), end="")
