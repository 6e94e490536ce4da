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


def terminated(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM unwinds like Ctrl-C, so that no scratch folder and no child process is left."""
    sys.exit(143)
