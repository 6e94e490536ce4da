"""The console script. Imports nothing beyond the standard library until it knows that the manager's extra is installed."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from types import FrameType

NEEDED = ("typer", "rich", "httpx", "fastapi", "uvicorn", "sqlalchemy", "onnx")
INSTALL = "pip install 'edgeops[manager]'"


def missing(names: tuple[str, ...] = NEEDED) -> list[str]:
    """Those of `names` that cannot be imported here."""
    return [name for name in names if not _is_there(name)]


def main() -> None:
    """Run `edgeops` with the process's arguments and exit with its code; on a base install say what to install and exit 2."""
    absent = missing()
    if absent:
        print(
            "error: this is the base install, which holds only what a device needs (edgeops-agent). To use `edgeops`, run:\n\n"
            f"    {INSTALL}\n\n(missing: {', '.join(absent)}) [base-install]",
            file=sys.stderr,
        )
        sys.exit(2)
    with loading():
        from .app import run

    signal.signal(signal.SIGTERM, _terminated)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


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


def _terminated(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM unwinds like Ctrl-C, so that no scratch folder and no child process is left."""
    sys.exit(143)


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


if __name__ == "__main__":
    main()
