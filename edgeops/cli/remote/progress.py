"""How a rollout looks: one line in a list, one live picture while it runs."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from textwrap import wrap
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from .. import show
from .plan import WIDTH, draw_plan

TERMINAL = ("finished", "halted", "aborted")
WAITING = {"waiting": "waiting for conditions to fetch", "ready": "ready to switch", "proven": "proven, waiting to commit"}
COUNTS = ("started", "committed", "unproven", "rolled_back", "failed", "unfit", "silent", "unknown")


def terminal(rollout: dict[str, Any]) -> bool:
    """Whether a watcher has nothing to wait for any more."""
    return rollout.get("status") in TERMINAL


def waves(rollout: dict[str, Any]) -> list[dict[str, Any]]:
    """The waves with their counters, as the API gives them."""
    found = rollout.get("wave_counts") or rollout.get("waves") or []
    return [wave for wave in found if isinstance(wave, dict)] if isinstance(found, list) else []


def total(rollout: dict[str, Any], name: str) -> int:
    """A counter over all waves."""
    counts = rollout.get("counts")
    if isinstance(counts, dict) and name in counts:
        return int(counts[name])
    return sum(int(wave.get(name, 0)) for wave in waves(rollout))


def reasons(rollout: dict[str, Any]) -> str:
    """Why it stopped, in words: the gate's own, then what the devices said and how many of them."""
    causes = rollout.get("reasons") or []
    said = [f"{cause.get('count')}× {cause.get('verdict')}: {cause.get('text')}" for cause in causes if isinstance(cause, dict)]
    why = str(rollout.get("why") or rollout.get("reason") or "")
    return show.safe("; ".join(filter(None, [why if why != rollout.get("status") else "", *said])))


def waiting(rollout: dict[str, Any]) -> list[str]:
    """How many devices wait in which phase, in words."""
    found = rollout.get("phases") or {}
    return [f"{found[phase]} {text}" for phase, text in WAITING.items() if found.get(phase)]


def line(rollout: dict[str, Any]) -> tuple[object, ...]:
    """One row of `rollout list`."""
    failures = total(rollout, "failed") + total(rollout, "rolled_back") + total(rollout, "silent")
    done = total(rollout, "committed") + total(rollout, "unproven")
    return (
        rollout.get("id"), f"{rollout.get('model')}:{rollout.get('version')}", rollout.get("to") or rollout.get("selector"),
        rollout.get("status"), rollout.get("wave"), total(rollout, "started"), done, failures, reasons(rollout),
    )  # fmt: skip


def draw(rollout: dict[str, Any], detail: bool = False) -> RenderableType:
    """The picture of one rollout; `detail` adds everything else the manager says."""
    head = Text.assemble(
        (str(rollout.get("id")), "bold"), "  ", f"{rollout.get('model')}:{rollout.get('version')} → "
        f"{show.safe(str(rollout.get('to') or rollout.get('selector') or ''))}  ", show.cell(rollout.get("status")),
    )  # fmt: skip
    rows = [
        (number, wave.get("label") or wave.get("up_to"), *(wave.get(name, 0) for name in COUNTS), wave.get("passed"))
        for number, wave in enumerate(waves(rollout), 1)
    ]
    parts: list[RenderableType] = [head, show.table(("wave", "to", *(n.replace("_", " ") for n in COUNTS), "passed"), rows)]
    if waiting(rollout):
        parts.append(Text(f"devices: {'; '.join(waiting(rollout))}"))
    if reasons(rollout):
        parts.append(Text(f"why: {reasons(rollout)}", style="" if rollout.get("status") == "finished" else "red"))
    if detail:
        parts += _details(rollout)
    return Group(*parts)


def brief(rollout: dict[str, Any]) -> str:
    """One line: the open wave and every counter that is not zero."""
    counts = [f"{total(rollout, name)} {name.replace('_', ' ')}" for name in COUNTS if total(rollout, name)]
    told = ", ".join([*counts, *waiting(rollout)]) or "nobody started"
    return f"{rollout.get('status')}, wave {rollout.get('wave')} of {len(waves(rollout))}: {told}"


@contextmanager
def picture() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Paints a rollout on stderr again and again: in place on a terminal, else a line whenever something changed."""
    screen, told = show.console(stderr=True), [""]
    if screen.is_terminal:
        with Live(console=screen, auto_refresh=False) as live:
            yield lambda rollout: live.update(draw(rollout), refresh=True)
        return

    def tell(rollout: dict[str, Any]) -> None:
        if brief(rollout) != told[0]:
            told[0] = brief(rollout)
            print(told[0], file=sys.stderr, flush=True)

    yield tell


def _details(rollout: dict[str, Any]) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if rollout.get("approval"):
        parts.append(draw_plan(rollout["approval"]))
    if devices := rollout.get("devices"):
        names = ("device", "wave", "status", "phase", "waits", "verdict", "reason", "detail")
        parts.append(show.table(names, ([device.get(name) for name in names] for device in devices)))
    for stream in rollout.get("delivery") or []:
        parts.append(Text("delivery: " + show.plain(stream), style="dim"))
    for name in () if rollout.get("approval") else ("conditions", "policy", "trial"):
        if rollout.get(name):
            parts.append(Text("\n  ".join(wrap(f"{name}: {show.plain(rollout[name])}", WIDTH)), style="dim"))
    return parts
