"""docs/agent.md says what `edgeops-agent` itself says, and each of its commands explains itself."""

import shlex
from pathlib import Path

import pytest

from edgeops_agent.cli.reference import commands, document

PAGE = Path(__file__).parents[2] / "docs" / "agent.md"
COMMANDS = dict(commands())


def test_page_is_up_to_date() -> None:
    """The page is what the parser writes."""
    assert PAGE.read_text("utf-8") == document(), "run: python -m edgeops_agent.cli.reference > docs/agent.md"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_good(name: str) -> None:
    """Every command says what it does, gives an example of its own and the exit codes, has --json, and help on every argument."""
    command = COMMANDS[name]
    text = command.format_help()
    assert len((command.description or "").split()) > 6
    assert f"example:\n  edgeops-agent {name}" in text and "exit codes:\n  0 " in text and "  5 " in text
    assert "--json" in text and "--state" in text
    assert all(action.help for action in command._actions)


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_can_be_typed(name: str) -> None:
    """The example of each command is one that its parser takes."""
    words = shlex.split((COMMANDS[name].epilog or "").splitlines()[1])
    assert COMMANDS[name].parse_args(words[2:])
