"""`edgeops demo` itself: options, the summary, the exit code."""

import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from edgeops.manager.settings import BROKERS
from edgeops.wire.errors import EdgeopsError, Misuse

from ... import show
from ...frame import Run
from .facts import REAL, failures

STEPS = 9
Keep = Annotated[bool, typer.Option("--keep", help="Leave manager and devices running until Ctrl-C, and the folder on disk.")]
Folder = Annotated[Path | None, typer.Option(metavar="DIR", help="Where to work (default: a scratch folder, deleted afterwards).")]
Broker = Annotated[str, typer.Option(help=f"Which broker the manager starts: {', '.join(BROKERS)}.")]
Devices = Annotated[
    int, typer.Option(min=REAL, metavar="N", help="How many devices; beyond five: straws, really enrolled, running no model.")
]
Seed = Annotated[int, typer.Option(help="Seed of the training data and of every image shown to a device.")]


def demo(
    run: Run, keep: Keep = False, folder: Folder = None, seed: Seed = 7, broker: Broker = "auto", devices: Devices = REAL
) -> int:
    """Fly the whole mission once, for real: manager, devices, good and bad releases, drift, thieves. Exit 0 if all held.

    Example: edgeops demo --keep
    """
    from .flight import Flight, clear
    from .stage import Stage

    _check(broker, folder)
    began, place = time.monotonic(), (folder or Path(tempfile.mkdtemp(prefix="edgeops-demo-"))).resolve()
    out = sys.stderr if run.json else sys.stdout

    def say(text: str) -> None:
        print(text, file=out, flush=True)

    signal.signal(signal.SIGTERM, _interrupt)
    stage = Stage(place, say)
    flight = Flight(stage, seed, _titles(say, began), broker, devices)
    say(f"edgeops demo in {place}\nTo type along:\n  {stage.invitation}")
    spared = keep or folder is not None
    try:
        facts = flight.fly()
        facts.seconds = round(time.monotonic() - began, 1)
        broken = failures(facts, devices)
        spared = spared or bool(broken)
        run.emit(asdict(facts) | {"ok": not broken, "broken": broken}, lambda: _summary(asdict(facts), broken, keep))
        if keep:
            _linger(say, place)
    except EdgeopsError:
        spared = True
        say(f"\nThe demo failed; what happened stands in {place / 'logs'}")
        raise
    finally:
        stage.close()
        if not spared:
            clear(place)
    return 1 if broken else 0


def _check(broker: str, folder: Path | None) -> None:
    if broker not in BROKERS:
        raise Misuse("unknown-broker", f"--broker {broker!r}: choose one of {', '.join(BROKERS)}")
    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise Misuse("folder-in-use", f"{folder} is not empty; give an empty or a new one")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _titles(say: Callable[[str], None], began: float) -> Callable[[str], None]:
    step = iter(range(1, STEPS + 1))
    return lambda text: say(f"\n[{next(step)}/{STEPS}] {text}  ({time.monotonic() - began:.0f} s)")


def _summary(facts: dict[str, Any], broken: list[str], keep: bool) -> None:
    rows = [(name.replace("_", " "), "; ".join(value) if isinstance(value, list) else value) for name, value in facts.items()]
    show.print_table(("fact", "value"), rows)
    print("Every promise held." if not broken else f"NOT held: {', '.join(broken)}")
    if not keep:
        print("\nKeep playing:  edgeops demo --keep   (then, in another terminal, the commands above)")


def _linger(say: Any, place: Path) -> None:
    say(f"\nStill running, in {place}. In another terminal type the line that stands at the top, then for example:")
    say("  edgeops status · edgeops rollout list · edgeops rollout show ID · edgeops drift · edgeops audit show")
    say("Ctrl-C ends it.")
    try:
        signal.pause()
    except KeyboardInterrupt:
        say("ending")
