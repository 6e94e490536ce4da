"""The console script. Imports nothing beyond the standard library until it knows that the manager's extra is installed."""

import io
import signal
import sys
from importlib.util import find_spec

from .signals import loading, terminated

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

    signal.signal(signal.SIGTERM, terminated)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


if __name__ == "__main__":
    main()
