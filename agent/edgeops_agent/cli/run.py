"""`edgeops-agent run`: the agent in the foreground, its log on standard output and in its folder."""

import argparse
import contextlib
import json
import os
import signal
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from edgeops import __version__
from edgeops.wire.errors import EdgeopsError

from ..shell.disk import write_whole
from ..shell.journal import Journal, begin, say, show_as, style_for
from ..shell.live import Live
from ..shell.logbook import Logbook
from ..shell.supervisor import Options, Supervisor
from ..shell.view import view_of


def add_to(commands: Any) -> None:
    """The command."""
    running = commands.add_parser(
        "run", help="run the agent in the foreground",
        description="Run the agent until Ctrl-C or SIGTERM. With --json its lines are JSON; the first says where it serves.",
        epilog="edgeops-agent run --port 8000",
    )  # fmt: skip
    running.add_argument("--host", default="127.0.0.1", help="address of the local inference endpoint (default: %(default)s)")
    running.add_argument("--port", type=_port, default=8000, help="its TCP port, 0 = any free one (default: %(default)s)")
    running.add_argument("--socket", type=Path, help="its Unix socket (default: run.sock in the state folder)")
    running.add_argument("--telemetry-s", type=_seconds, default=10.0, help="seconds a telemetry window (default: %(default)s)")
    running.add_argument(
        "--log-format", choices=("auto", "text", "json"), default="auto",
        help="how lines go to standard output: text on a terminal and for systemd, else JSON (default: %(default)s)",
    )  # fmt: skip
    running.set_defaults(act=_run)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; 0 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0.1 to 86400")
    return seconds


def _run(options: argparse.Namespace) -> int:
    socket = options.socket or options.state / "run.sock"
    journal = Journal(show_as(style_for("json" if options.json else options.log_format)))
    begin(journal)
    supervisor = Supervisor(Options(options.state, options.host, options.port, socket, options.telemetry_s))

    def leave(_number: int, _frame: FrameType | None) -> None:
        supervisor.stop()

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    journal.add(Logbook(options.state).take)
    device, bound = supervisor.record.trust.device, supervisor.listeners
    where = {"http": f"http://{options.host}:{bound.port}"} | ({"unix": str(bound.path)} if bound.path else {})
    with _shown(options.state / "endpoint.json", {**where, "pid": os.getpid()}):
        text = f"agent {device} serves {' and '.join(where.values())}"
        say("start", text, device=device, pid=os.getpid(), agent=__version__, **where)
        live = Live(options.state, view_of(supervisor))
        live.open()
        try:
            supervisor.run()
        except BaseException:
            say("stop", f"agent {device} ends: {traceback.format_exc()}", "error", device=device, pid=os.getpid())
            raise
        finally:
            live.close()
        say("stop", f"agent {device} has stopped", device=device, pid=os.getpid())
    return 0


@contextlib.contextmanager
def _shown(path: Path, endpoint: dict[str, object]) -> Iterator[None]:
    """Say in a file where we serve, while we do. It is a convenience: a full disk does not stop the agent."""
    try:
        write_whole(path, json.dumps(endpoint).encode())
    except EdgeopsError as error:
        say("disk", f"endpoint.json is not written: {error}", "warn", reason=error.reason)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
