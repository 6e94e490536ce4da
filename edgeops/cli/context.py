"""Named contexts: which manager a command talks to and with what. One TOML file, readable by its owner only."""

import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgeops.wire.errors import Misuse

NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Context:
    """`url` of the manager without /api/v1, `ca` the path of the only CA trusted for it, `token` an API token or a login's.

    A login's token ends at `expires` (Unix seconds, 0 if nobody said so) and can be had anew with `refresh`.
    """

    name: str
    url: str
    ca: str
    token: str = field(repr=False)
    refresh: str = field(default="", repr=False)
    expires: int = 0


@dataclass(frozen=True, slots=True)
class Contexts:
    """All contexts by name and which one is current ("" when none is)."""

    current: str = ""
    known: Mapping[str, Context] = field(default_factory=dict)

    def pick(self, name: str | None = None) -> Context:
        """The context `name`, or the current one; raises Misuse."""
        if not self.known:
            raise Misuse("no-context", "no manager is known yet; run `edgeops init` here, or set EDGEOPS_CONFIG to a contexts file")
        wanted = name or self.current
        if wanted not in self.known:
            raise Misuse("unknown-context", f"there is no context {wanted!r}; known: {', '.join(sorted(self.known))}")
        return self.known[wanted]

    def used(self, name: str) -> "Contexts":
        """The same with `name` current; raises Misuse when it is unknown."""
        return replace(self, current=self.pick(name).name)

    def added(self, context: Context) -> "Contexts":
        """The same with `context` added (or replaced) and current."""
        check_name(context.name)
        return Contexts(context.name, {**self.known, context.name: context})

    def renewed(self, context: Context) -> "Contexts":
        """The same with another token in a known context; one that is not known is added."""
        return replace(self, known={**self.known, context.name: context}) if context.name in self.known else self.added(context)


def check_name(name: str) -> None:
    """Raise Misuse("context-name") unless a context may be called so."""
    if not NAME.fullmatch(name):
        raise Misuse("context-name", f"{name!r} is no context name; use letters, digits, dot, dash, underscore")


def path() -> Path:
    """Where contexts are kept: $EDGEOPS_CONFIG, else ~/.config/edgeops/contexts.toml (XDG_CONFIG_HOME is honoured)."""
    if chosen := os.environ.get("EDGEOPS_CONFIG"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edgeops" / "contexts.toml"


def load(file: Path | None = None) -> Contexts:
    """Read the contexts; a missing file is an empty list. Raises Misuse when it cannot be understood."""
    file = file or path()
    try:
        data = tomllib.loads(file.read_text("utf-8"))
        known = {
            name: Context(
                name, str(entry["url"]), str(entry["ca"]), str(entry["token"]), str(entry.get("refresh", "")),
                int(entry.get("expires", 0)),
            )
            for name, entry in data.get("contexts", {}).items()
        }
        return Contexts(str(data.get("current", "")), known)
    except FileNotFoundError:
        return Contexts()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise Misuse("contexts-malformed", f"{file} is not a contexts file ({error}); repair or remove it") from None


def save(contexts: Contexts, file: Path | None = None) -> Path:
    """Write the contexts atomically with mode 0600 and return the path."""
    file = file or path()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=".contexts-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(_toml(contexts))
            out.flush()
            os.fsync(out.fileno())
        Path(temporary).replace(file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return file


def _toml(contexts: Contexts) -> str:
    lines = ["# Written by edgeops; holds API tokens: keep it readable by you alone.", f"current = {_text(contexts.current)}"]
    for name in sorted(contexts.known):
        entry = contexts.known[name]
        lines += ["", f"[contexts.{_text(name)}]", f"url = {_text(entry.url)}", f"ca = {_text(entry.ca)}"]
        lines += [f"token = {_text(entry.token)}"]
        lines += [f"refresh = {_text(entry.refresh)}", f"expires = {entry.expires}"] if entry.refresh or entry.expires else []
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    escaped = "".join(
        f"\\{char}" if char in '"\\' else f"\\u{ord(char):04x}" if char < " " or char == "\x7f" else char for char in value
    )
    return f'"{escaped}"'
