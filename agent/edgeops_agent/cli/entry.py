"""Where the console script enters: one command, its exit code, its errors said once."""

import argparse
import contextlib
import os
import sys

from edgeops.wire.errors import EdgeopsError

from .parser import build_parser
from .show import answer


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the exit code says who must act (docs/agent.md)."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a device may know ASCII only
            stream.reconfigure(errors="backslashreplace")
    options = build_parser().parse_args(arguments)
    try:
        return int(options.act(options))
    except EdgeopsError as error:
        return _failed(options, error)
    except KeyboardInterrupt:
        return 130
    finally:
        _forget_unwritten()


def _failed(options: argparse.Namespace, error: EdgeopsError) -> int:
    if options.json:
        answer({"error": {"reason": error.reason, "message": error.message}})
    with contextlib.suppress(OSError):
        print(f"error: {error}", file=sys.stderr)
    return error.exit_code


def _forget_unwritten() -> None:
    """What a closed pipe or a full disk did not take must not turn into another exit code when Python ends."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
