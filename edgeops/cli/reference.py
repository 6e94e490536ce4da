"""docs/cli.md from the commands themselves: `python -m edgeops.cli.reference > docs/cli.md`."""

from collections.abc import Iterator
from typing import Any

import typer

from .app import app

HEAD = """# The command line

Written by `python -m edgeops.cli.reference > docs/cli.md`; a test fails when it is out of date.

Every command takes `--json` and `--context NAME`. With `--json` one JSON object goes to stdout, whatever happens, and people's
text to stderr; on failure it is `{"error": {"reason", "message", "kind", "exit_code"}}`. `up` says there that it is ready; what
ends it later is said on stderr.
Contexts are kept in `$EDGEOPS_CONFIG`, else `~/.config/edgeops/contexts.toml` (mode 0600). `$EDGEOPS_TOKEN` is used instead of
a context's token, for machines; no token is ever an argument, where others could read it.

| exit code | means |
|---|---|
| 0 | done |
| 1 | a bug, or a check that found a problem |
| 2 | misuse: wrong arguments, unknown names, wrong role; also the base install without `edgeops[manager]` |
| 3 | rejected: a document, signature or model; no variant passed its gates |
| 4 | unreachable: nobody answers, or too late |
| 5 | unfit: the device or machine lacks something |
| 6 | a watched rollout was halted or aborted |
| 130 | interrupted with Ctrl-C; `up`, which runs until then, ends with 0 |
| 143 | ended with SIGTERM; `up` ends with 0 |
"""
SHARED = ("json_", "context_", "help")


def leaves(command: Any = None, path: tuple[str, ...] = ("edgeops",)) -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its full name, in the order of `--help`."""
    command = typer.main.get_command(app) if command is None else command
    children = getattr(command, "commands", None)
    if children is None:
        yield " ".join(path), command
        return
    for name, child in children.items():
        yield from leaves(child, (*path, name))


def document() -> str:
    """The whole page as markdown."""
    return HEAD + "".join(f"\n## {name}\n\n{_body(command)}" for name, command in leaves())


def _body(command: Any) -> str:
    told, _, example = (command.help or "").partition("Example:")
    lines = [" ".join(told.split()), ""]
    if example:
        lines += ["```sh", " ".join(example.split()), "```", ""]
    rows = [row for parameter in command.params if parameter.name not in SHARED for row in [_row(parameter)]]
    if rows:
        lines += ["| argument | meaning |", "|---|---|", *rows, ""]
    return "\n".join(lines).rstrip() + "\n"


def _row(parameter: Any) -> str:
    is_option = parameter.param_type_name == "option"
    words = (*parameter.opts, *parameter.secondary_opts) if is_option else (parameter.metavar,)
    names = ", ".join(f"`{word}`" for word in words)
    text = " ".join(str(parameter.help or "").split()).replace("|", "\\|")
    default = parameter.default
    shown = is_option and isinstance(default, str | int | float) and not isinstance(default, bool)
    return f"| {names} | {text}{f' (default: {default})' if shown else ''} |"


if __name__ == "__main__":
    print(document(), end="")
