"""`edgeops-agent`: enrol a device, run the agent, look at it. argparse only: the device installs nothing for its command line."""

import argparse
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from edgeops import __version__
from edgeops.wire.errors import EdgeopsError

from .shell.disk import StateFolder
from .shell.identity import enroll
from .shell.reporting import report_of
from .shell.supervisor import Options, Supervisor

DEFAULT_STATE = Path(os.environ.get("EDGEOPS_AGENT_STATE", "~/.local/state/edgeops-agent")).expanduser()


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser("edgeops-agent", description="Run models on this device as an edgeops manager asks.")
    parser.add_argument("--version", action="version", version=f"edgeops-agent {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    joining = commands.add_parser("enroll", help="redeem a one-time token from `edgeops device register`")
    joining.add_argument("token", help="the string that was printed, or - to read it from standard input")
    running = commands.add_parser("run", help="run the agent in the foreground")
    running.add_argument("--host", default="127.0.0.1", help="address of the local inference endpoint (default: %(default)s)")
    running.add_argument("--port", type=int, default=8000, help="its TCP port, 0 = any free one (default: %(default)s)")
    running.add_argument("--socket", type=Path, help="its Unix socket (default: run.sock in the state folder)")
    running.add_argument("--telemetry-s", type=float, default=10.0, help="seconds between telemetry windows (default: %(default)s)")
    looking = commands.add_parser("status", help="what this device runs and how the last order ended")
    for each in (joining, running, looking):
        each.add_argument("--state", type=Path, default=DEFAULT_STATE, help="the agent's folder (default: %(default)s)")
        each.add_argument("--json", action="store_true", help="one JSON object on standard output")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the exit code says who must act (docs/cli.md)."""
    options = build_parser().parse_args(arguments)
    try:
        return {"enroll": _enroll, "run": _run, "status": _status}[options.command](options)
    except EdgeopsError as error:
        if options.json:
            _say(json.dumps({"error": {"reason": error.reason, "message": error.message}}))
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def _enroll(options: argparse.Namespace) -> int:
    token = sys.stdin.read() if options.token == "-" else options.token  # noqa: S105
    trust = enroll(token, options.state)
    told = {"device": trust.device, "fleet": trust.fleet, "incarnation": trust.incarnation, "state": str(options.state)}
    _say(json.dumps(told) if options.json else f"enrolled {trust.device} in fleet {trust.fleet}; now: edgeops-agent run")
    return 0


def _run(options: argparse.Namespace) -> int:
    socket = options.socket or options.state / "run.sock"
    supervisor = Supervisor(Options(options.state, options.host, options.port, socket, options.telemetry_s))

    def leave(_number: int, _frame: FrameType | None) -> None:
        supervisor.stop()

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    endpoint = f"http://{options.host}:{supervisor.listeners.port}"
    (options.state / "endpoint.json").write_text(json.dumps({"http": endpoint, "unix": str(socket), "pid": os.getpid()}))
    told = {"device": supervisor.record.trust.device, "http": endpoint, "unix": str(socket)}
    _say(json.dumps(told) if options.json else f"agent {told['device']} serves {endpoint} and {socket}")
    try:
        supervisor.run()
    finally:
        with contextlib.suppress(FileNotFoundError):
            (options.state / "endpoint.json").unlink()
    return 0


def _status(options: argparse.Namespace) -> int:
    record = StateFolder(options.state).load()
    slots = {name: report_of(slot).payload() for name, slot in record.slots.items()}
    if options.json:
        _say(json.dumps({"device": record.trust.device, "slots": slots, "counters": dict(record.counters)}))
        return 0
    _say(f"device {record.trust.device} of fleet {record.trust.fleet}, newest order {record.trust.counter}")
    for name, slot in slots.items():
        running = f"{slot['model']}:{slot['version']} ({slot['variant']})" if "model" in slot else "no model"
        _say(f"  {name}: {running}, {slot['phase']} {slot.get('verdict', '')} {slot.get('reason', '')}".rstrip())
    for name, count in sorted(record.counters.items()):
        _say(f"  {name}: {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
