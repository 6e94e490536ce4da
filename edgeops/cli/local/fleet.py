"""edgeops fleet check: is a fleet.toml right?"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeops.fleet.wish import Wish, parse_wish
from edgeops.rollout.plan import SETTINGS, check_rollout
from edgeops.wire.errors import Misuse

from .. import show
from ..frame import Run, command

app = typer.Typer(help="Look at the declared wish for a whole fleet.", no_args_is_help=True)


@command(app, "check")
def check(run: Run, file: Annotated[Path, typer.Argument(metavar="FILE", help="A fleet.toml.")] = Path("fleet.toml")) -> None:
    """Check a fleet.toml: every complaint at once, each with its path in the file. This version applies nothing of it.

    Example: edgeops fleet check fleet.toml
    """
    wish = parse_wish(read_text(file), SETTINGS, check_rollout, file.name)
    run.emit(summary(wish), lambda: _draw(wish))


def read_text(file: Path) -> str:
    """The file's text; raises Misuse("fleet-toml-invalid") when it is not UTF-8."""
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise Misuse("fleet-toml-invalid", f"{file} is not UTF-8 text: {error}") from None


def summary(wish: Wish) -> dict[str, Any]:
    """The checked wish as JSON."""
    return {
        "fleet": wish.fleet, "groups": {name: str(selector) for name, selector in wish.groups.items()},
        "models": [asdict(model) for model in wish.models],
        "rollouts": {name: {"waves": item.waves, "settings": dict(item.settings)} for name, item in wish.rollouts.items()},
        "limits": dict(wish.limits), "applied": False,
    }  # fmt: skip


def _draw(wish: Wish) -> None:
    counts = f"{len(wish.groups)} groups, {len(wish.models)} models, {len(wish.rollouts)} rollout policies"
    print(f"fleet {wish.fleet}: {counts}; all right. This version checks the file and applies nothing of it.")
    rows = [(model.name, model.version or "newest", model.group, model.slot, model.rollout) for model in wish.models]
    show.print_table(("model", "version", "group", "slot", "rollout"), rows, "no model is wished for")
