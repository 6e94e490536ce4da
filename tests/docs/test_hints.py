"""Every command that a message, a comment or a page tells people to type exists, with the options it names."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeops.cli.reference import leaves
from edgeops_agent.cli import build_parser

ROOT = Path(__file__).parents[2]
COMMANDS = {tuple(name.split()[1:]): command for name, command in leaves()}
TOLD = re.compile(r"(?:`|^\s*(?:#\s+)?(?:\$ )?|Example: )(edgeops(?:-agent)? [a-z][^`\n#|&;]*)", re.MULTILINE)


def texts() -> Iterator[tuple[str, str]]:
    """(path, text) of everything people read: pages, examples, and the sources with their messages."""
    deploy = filter(Path.is_file, ROOT.glob("deploy/**/*"))
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *deploy, ROOT / "fleet.example.toml"]
    for path in [*pages, *ROOT.glob("edgeops/**/*.py"), *ROOT.glob("agent/**/*.py")]:
        yield path.relative_to(ROOT).as_posix(), path.read_text("utf-8")


def wrong(told: str) -> str:
    """What is wrong with a command somebody is told to type; empty when nothing is."""
    words = told.split()
    if words[0] == "edgeops-agent":
        known = build_parser().format_help()
        return "" if words[1] in known or words[1].startswith("-") else f"no command {words[1]}"
    path = next((tuple(words[1 : 1 + size]) for size in (2, 1) if tuple(words[1 : 1 + size]) in COMMANDS), None)
    if path is None:
        return "" if any(name[: len(words) - 1] == tuple(words[1:]) for name in COMMANDS) else "no such command"
    options = {option for parameter in COMMANDS[path].params for option in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [word for word in re.findall(r"(?<![\w-])--[a-z][a-z-]+", told) if word not in options | {"--help"}]
    return f"no option {unknown[0]}" if unknown else ""


def test_every_command_people_are_told_exists() -> None:
    """No page, comment or message names a command or an option there is not."""
    every = [(path, told.strip()) for path, text in texts() for told in TOLD.findall(text)]
    found = {(path, told): wrong(told) for path, told in every if len(told.split()) < 20}  # a longer one is a sentence
    assert len(found) > 60
    assert {where: why for where, why in found.items() if why} == {}


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ("edgeops devices", "no such command"), ("edgeops rollout begin x", "no such command"), ("edgeops rollout", ""),
        ("edgeops rollout start digits:1 --too all", "no option --too"), ("edgeops device show pi-1 --json", ""),
        ("edgeops-agent join", "no command join"), ("edgeops-agent enroll TOKEN", ""),
    ],
)  # fmt: skip
def test_a_command_that_is_gone_is_noticed(told: str, why: str) -> None:
    """The check itself tells right from wrong."""
    assert wrong(told) == why
