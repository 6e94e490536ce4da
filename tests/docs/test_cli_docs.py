"""docs/cli.md says what the commands themselves say, all of them, and each command explains itself."""

from pathlib import Path

import pytest

from edgeops.cli.reference import document, leaves

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
COMMANDS = dict(leaves())


def test_every_command_is_documented():
    """Every command of the tree has its heading in docs/cli.md."""
    headings = {line[3:] for line in PAGE.read_text("utf-8").splitlines() if line.startswith("## ")}
    assert set(COMMANDS) == headings


def test_page_is_up_to_date():
    """The page is what `python -m edgeops.cli.reference` writes."""
    assert PAGE.read_text("utf-8") == document(), "run: python -m edgeops.cli.reference > docs/cli.md"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_good(name: str):
    """Every command has an example that starts with its own name, --json, --context, and help on every parameter."""
    command = COMMANDS[name]
    told, _, example = command.help.partition("Example:")
    assert len(told.split()) >= 4
    assert " ".join(example.split()).startswith(name)
    assert {"json_", "context_"} <= {parameter.name for parameter in command.params}
    assert all(parameter.help for parameter in command.params if parameter.name != "help")
