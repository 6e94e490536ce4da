"""docs/settings.md from the settings themselves: `python -m edgeops.manager.reference > docs/settings.md`."""

import json
import sys
from dataclasses import Field, fields
from typing import Any

from .settings import Settings

HEAD = """# The manager's settings

Written by `python -m edgeops.manager.reference > docs/settings.md`; a test fails when it is out of date.

`edgeops init` writes them to `edgeops.toml` in the manager's folder, each with its default; what is left out has its default. An
unknown name or a value out of bounds keeps `edgeops up` from starting (exit 2, naming it). Restart the manager after a change.
Names and ports also stand in the server's certificate and in the signed site document, which `init` makes and `edgeops site sign`
renews: until then `edgeops up` does not start with other ones, because devices would look for it in the wrong place.

| setting | default | bounds | means |
|---|---|---|---|
"""


def document() -> str:
    """The whole page as markdown."""
    return HEAD + "".join(_row(item) for item in fields(Settings))


def _row(item: "Field[Any]") -> str:
    value = item.default
    shown = json.dumps(value) if isinstance(value, str | int | tuple) else str(value)
    bounds = f"{item.metadata['low']} to {item.metadata['high']}" if isinstance(value, int) else "–"
    return f"| `{item.name}` | `{shown}` | {bounds} | {item.metadata['help']} |\n"


if __name__ == "__main__":
    sys.stdout.write(document())
