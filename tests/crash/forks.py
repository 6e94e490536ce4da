"""Children of this process that stand in a folder of their own and say by a wire what came of them."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

HANGS_S = 120
WELL = 0


def forked(place: Path, most_s: int = HANGS_S) -> tuple[int, int]:
    """A child that stands in `place`, killed after so long: its number, 0 in the child, and this end of the wire from it."""
    ours, theirs = os.pipe()
    child = os.fork()
    os.close(theirs if child else ours)
    if not child:
        signal.alarm(most_s)
        os.chdir(place)
    return child, ours if child else theirs


def ended(child: int, wire: int) -> tuple[int, list[bytes]]:
    """How a child ended, and the lines it wrote."""
    with os.fdopen(wire, "rb") as file:
        lines = file.read().splitlines()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), lines


def end_with(work: Callable[[], object], wire: int) -> NoReturn:
    """End this process with what `work` comes to: nothing below this line must go on in a child."""
    try:
        work()
    except BaseException as error:
        os.write(wire, f"! {type(error).__name__}: {error}".encode())
        os._exit(1)
    os._exit(WELL)
