"""`python -m edgeops_agent.sim`: enrol straw devices with one-time tokens and run them until told to stop."""

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from edgeops.wire.errors import EdgeopsError

from .host import Host, enrol_all, read_tokens

FILES_A_STRAW, OTHER_FILES = 5, 100
MEGABYTE = 1 << 20


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        "python -m edgeops_agent.sim",
        description="Run straw devices: really enrolled, really connected, running no model. Ctrl-C ends them.",
    )
    parser.add_argument("--tokens", required=True, metavar="FILE|-", help="enrolment tokens, one a line; - is standard input")
    parser.add_argument("--state", type=Path, metavar="FOLDER", help="keep the devices here (default: gone when this ends)")
    parser.add_argument("--shelf-mb", type=int, default=512, help="most megabytes of model kept for all (default: %(default)s)")
    parser.add_argument("--parent", type=int, metavar="PID", help="end when this process is no longer our parent")
    parser.add_argument("--json", action="store_true", help="one JSON object per milestone on standard output")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the exit code says who must act (docs/cli.md)."""
    options = build_parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    try:
        tokens = read_tokens(sys.stdin.read() if options.tokens == "-" else Path(options.tokens).read_text("utf-8"))
        if options.state:
            _run(options, tokens, options.state)
        else:
            with tempfile.TemporaryDirectory(prefix="edgeops-straw-") as folder:
                _run(options, tokens, Path(folder))
    except EdgeopsError as error:
        return _failed(options, error.reason, error.message, error.exit_code)
    except OSError as error:
        return _failed(options, "os-error", f"{error.filename or ''}: {error.strerror or error}", 2)
    except KeyboardInterrupt:
        return 130
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _failed(options: argparse.Namespace, reason: str, message: str, code: int) -> int:
    if options.json:
        _say(json.dumps({"error": {"reason": reason, "message": message}}))
    print(f"error: {message} [{reason}]", file=sys.stderr)  # noqa: T201
    return code


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def _run(options: argparse.Namespace, tokens: list[str], root: Path) -> None:
    count, began = len(tokens), time.monotonic()

    def tell(text: str, milestone: str, **more: Any) -> None:
        told = {"milestone": milestone, "devices": count, "seconds": round(time.monotonic() - began, 1), **more}
        _say(json.dumps(told) if options.json else text)

    def enrolled(done: int) -> None:
        if done == count or done % max(1, count // 10) == 0:
            tell(f"enrolled {done} of {count}", "enrolled", done=done)

    _allow_files(count * FILES_A_STRAW + OTHER_FILES)
    folders = enrol_all(tokens, root, enrolled)
    log: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: T201, E731
    host = Host(folders, root / ".shelf", options.shelf_mb * MEGABYTE, log)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: host.stop())
    host.run(
        lambda online: tell(f"{online} straw devices online", "online", **_weight()),
        lambda: options.parent is None or os.getppid() == options.parent,
    )
    tell("stopped", "stopped", **_weight())


def _weight() -> dict[str, int]:
    """What all straws cost together: the largest resident set so far in MB, threads."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"rss_mb": peak // (MEGABYTE if sys.platform == "darwin" else 1024), "threads": threading.active_count()}


def _allow_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


if __name__ == "__main__":
    sys.exit(main())
