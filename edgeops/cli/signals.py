"""How a command hears Ctrl-C and SIGTERM. Standard library only: `entry` needs it before anything else is loaded."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """While big packages are imported, Ctrl-C ends the process at once.

    There is nothing to tidy up yet, and a KeyboardInterrupt raised in the middle of an import may be swallowed there.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"interrupted\n")
    os._exit(130)


_heard: list[int] = []


def terminated(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM unwinds like Ctrl-C, so that no scratch folder and no child process is left."""
    _heard.append(143)
    sys.exit(143)


def check() -> None:
    """Leave now if SIGTERM came before: what it raised may have been swallowed in an import or a library's callback."""
    if _heard:
        sys.exit(_heard[0])


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the end of the block."""
    heard: list[int] = []
    before = {number: signal.signal(number, lambda number, _: heard.append(number)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if heard:
        signal.raise_signal(heard[0])
