"""`edgeops-agent`: enrol a device, run the agent, look at it. argparse only: the device installs nothing for its command line."""

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from edgeops import __version__
from edgeops.wire.errors import EdgeopsError

from .shell.disk import StateFolder, write_whole
from .shell.enrolment import Patience, enroll, make_identity
from .shell.journal import Journal, begin, say, show_as, style_for
from .shell.logbook import Logbook
from .shell.reporting import report_of
from .shell.supervisor import Options, Supervisor

DEFAULT_STATE = Path(os.environ.get("EDGEOPS_AGENT_STATE", "~/.local/state/edgeops-agent")).expanduser()
EXIT_CODES = """exit codes: 0 done (for `run` also: stopped by Ctrl-C or SIGTERM), 1 a bug, 2 misuse, 3 rejected (a document, a
damaged record, a manager that is not the token's), 4 unreachable (no manager answers), 5 unfit (disk …), 130 Ctrl-C elsewhere"""


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        "edgeops-agent", description="Run models on this device as an edgeops manager asks.", epilog=EXIT_CODES
    )
    parser.add_argument("--version", action="version", version=f"edgeops-agent {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    joining = commands.add_parser(
        "enroll", help="enter a fleet with what `edgeops device register` printed",
        description="Make keys on this device and get it a certificate. Where an operator must approve it first, this waits and "
        "asks again; it may be ended with Ctrl-C or killed at any time, and the same command goes on.",
    )  # fmt: skip
    joining.add_argument("token", help="the one-time token or the join line, or - to read it from standard input")
    joining.add_argument("--no-wait", action="store_true", help="end with exit code 4 where an operator must approve first")
    naming = commands.add_parser(
        "identity", help="make this device's identity key if it has none, and print its fingerprint",
        description="For `edgeops device register --from devices.csv`, column `fingerprint`: such a device needs no secret.",
    )  # fmt: skip
    running = commands.add_parser("run", help="run the agent in the foreground")
    running.add_argument("--host", default="127.0.0.1", help="address of the local inference endpoint (default: %(default)s)")
    running.add_argument("--port", type=_port, default=8000, help="its TCP port, 0 = any free one (default: %(default)s)")
    running.add_argument("--socket", type=Path, help="its Unix socket (default: run.sock in the state folder)")
    running.add_argument("--telemetry-s", type=_seconds, default=10.0, help="seconds a telemetry window (default: %(default)s)")
    running.add_argument(
        "--log-format", choices=("auto", "text", "json"), default="auto",
        help="how lines go to standard output: text on a terminal and for systemd, else JSON (default: %(default)s)",
    )  # fmt: skip
    looking = commands.add_parser("status", help="what this device runs and how the last order ended")
    for each in (joining, naming, running, looking):
        each.add_argument("--state", type=Path, default=DEFAULT_STATE, help="the agent's folder (default: %(default)s)")
        each.add_argument("--json", action="store_true", help="one JSON object on standard output")
    return parser


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


def show(text: str) -> None:
    """One answer on standard output; a full disk or a closed pipe does not change the exit code."""
    with contextlib.suppress(OSError, ValueError):
        print(text, flush=True)  # noqa: T201


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the exit code says who must act (docs/cli.md)."""
    options = build_parser().parse_args(arguments)
    try:
        return {"enroll": _enroll, "identity": _identity, "run": _run, "status": _status}[options.command](options)
    except EdgeopsError as error:
        if options.json:
            show(json.dumps({"error": {"reason": error.reason, "message": error.message}}))
        with contextlib.suppress(OSError):
            print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    finally:
        _forget_unwritten()


def _forget_unwritten() -> None:
    """What a closed pipe or a full disk did not take must not turn into another exit code when Python ends."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _enroll(options: argparse.Namespace) -> int:
    token = sys.stdin.read() if options.token == "-" else options.token  # noqa: S105
    waiting = Patience(lambda text: print(text, file=sys.stderr, flush=True))  # noqa: T201
    trust = enroll(token, options.state) if options.no_wait else enroll(token, options.state, waiting.wait)
    told = {"device": trust.device, "fleet": trust.fleet, "incarnation": trust.incarnation, "state": str(options.state)}
    where = "" if options.state == DEFAULT_STATE else f" --state {options.state}"
    show(json.dumps(told) if options.json else f"enrolled {trust.device} in fleet {trust.fleet}; now: edgeops-agent run{where}")
    return 0


def _identity(options: argparse.Namespace) -> int:
    found = make_identity(options.state)
    show(json.dumps({"fingerprint": found, "state": str(options.state)}) if options.json else found)
    return 0


def _run(options: argparse.Namespace) -> int:
    socket = options.socket or options.state / "run.sock"
    journal = Journal(show_as(style_for("json" if options.json else options.log_format)))
    begin(journal)
    supervisor = Supervisor(Options(options.state, options.host, options.port, socket, options.telemetry_s))

    def leave(_number: int, _frame: FrameType | None) -> None:
        supervisor.stop()

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    endpoint, device = f"http://{options.host}:{supervisor.listeners.port}", supervisor.record.trust.device
    journal.add(Logbook(options.state).take)
    with _shown(options.state / "endpoint.json", {"http": endpoint, "unix": str(socket), "pid": os.getpid()}):
        text = f"agent {device} serves {endpoint} and {socket}"
        say("start", text, device=device, http=endpoint, unix=str(socket), pid=os.getpid(), agent=__version__)
        supervisor.run()
        say("stop", f"agent {device} has stopped", pid=os.getpid())
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


def _status(options: argparse.Namespace) -> int:
    record = StateFolder(options.state).load()
    slots = {name: report_of(slot).payload() for name, slot in record.slots.items()}
    if options.json:
        show(json.dumps({"device": record.trust.device, "slots": slots, "counters": dict(record.counters)}))
        return 0
    show(f"device {record.trust.device} of fleet {record.trust.fleet}, newest order {record.trust.counter}")
    for name, slot in slots.items():
        running = f"{slot['model']}:{slot['version']} ({slot['variant']})" if "model" in slot else "no model"
        show(f"  {name}: {running}, {slot['phase']} {slot.get('verdict', '')} {slot.get('reason', '')}".rstrip())
    for name, count in sorted(record.counters.items()):
        show(f"  {name}: {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
