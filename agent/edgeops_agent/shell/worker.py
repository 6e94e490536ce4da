"""The inference worker: `python -m edgeops_agent.shell.worker --control FD --parent PID`, started by `workers.Worker` only.

It reads commands from the control channel and lives no longer than the supervisor: the end of that channel is its end.
"""

import argparse
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeops.wire import errors
from edgeops.wire.errors import EdgeopsError, Misuse

from .confine import Confinement, confine
from .frames import Channel
from .http import HttpServer
from .outcome import STUCK, ProbeOutcome
from .probe import probe
from .recording import Recording, open_recording
from .replies import refuse
from .routes import Routes
from .runnable import Runnable
from .served import Served
from .session import Engine, open_session

_STACK_BYTES = 512 << 10


class WorkerProcess:
    """Carries out the supervisor's commands, one at a time; replies to each."""

    def __init__(self, channel: Channel, confinement: Confinement) -> None:
        self._channel = channel
        self._confinement = confinement
        self._served: Served | None = None
        self._server: HttpServer | None = None
        self._recording: Recording | None = None
        self._commands: queue.SimpleQueue[tuple[dict[str, Any], list[int]]] = queue.SimpleQueue()

    def run(self) -> None:
        """Obey until told to stop."""
        threading.Thread(target=self._hear, name="control", daemon=True).start()
        self._channel.send({"phase": "ready", "holds": self._confinement.holds, "missing": list(self._confinement.missing)})
        duties: Mapping[str, Callable[[dict[str, Any], list[int]], dict[str, Any]]] = {
            "load": self._load,
            "serve": self._serve,
            "drain": self._drain,
            "collect": self._collect,
        }
        while True:
            command, fds = self._commands.get()
            if command["do"] == "stop":
                break
            self._channel.send({"reply": duties[command["do"]](command, fds)})
        self._channel.send({"reply": {}})

    def _hear(self) -> None:
        while (frame := self._channel.receive()) is not None:
            message, fds = frame
            if message["do"] != "adopt":
                self._commands.put((message, fds))
                continue
            for fd in fds:
                connection = socket.socket(fileno=fd)
                if self._server is None:
                    connection.close()
                else:
                    self._server.adopt(connection)
        os._exit(0)

    def _load(self, command: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        try:
            runnable = Runnable.from_json(command["runnable"])
            engine = Engine(open_session(runnable), runnable.limits.call_ms, self._stuck)
            self._channel.send({"phase": "loaded"})
            outcome = probe(engine, runnable, lambda: self._channel.send({"phase": "call"}))
            self._recording = open_recording(runnable) if outcome.ok else None
        except EdgeopsError as error:
            outcome = ProbeOutcome(False, error.reason, error.message)
        except MemoryError as error:
            outcome = ProbeOutcome(False, "memory", f"not enough memory within the limit: {error}")
        except OSError as error:
            outcome = ProbeOutcome(False, "load-failed", f"a file of the model cannot be read: {error}")
        if outcome.ok:
            self._served = Served(runnable, engine, self._recording)
        return asdict(outcome)

    def _serve(self, command: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """From here on it holds the listening sockets: a model that is not proved yet must not take calls that others answer."""
        if self._served is None:
            raise Misuse("not-loaded", "serve comes after a successful load")
        routes = Routes(self._served, lambda: self._server is not None and not self._server.draining)
        self._server = HttpServer(routes.answer, refuse)
        self._server.listen([socket.socket(fileno=fd) for fd in fds])
        return {}

    def _drain(self, command: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        if self._server is None:
            return {"cut": 0}
        pass_over = self._pass_over if command["pass_over"] else None
        return {"cut": self._server.drain(pass_over, command["seconds"])}

    def _pass_over(self, connection: socket.socket) -> bool:
        return self._channel.send({"event": "connection"}, [connection.fileno()])

    def _collect(self, command: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        counters = {} if self._served is None else self._served.counters()
        window = None if self._recording is None else self._recording.window(time.time_ns() // 1_000_000)
        return {"counters": counters, "window": window}

    def _stuck(self) -> None:
        self._channel.send({"event": "stuck"})
        os._exit(STUCK)


def main(arguments: list[str]) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="edgeops_agent.shell.worker", description=__doc__)
    parser.add_argument("--control", type=int, required=True, help="file descriptor of the control socket")
    parser.add_argument("--parent", type=int, required=True, help="process id of the supervisor")
    parser.add_argument("--memory", type=int, required=True, help="bytes it may take beyond what the runtime needs")
    parser.add_argument("--read", type=Path, action="append", default=[], help="file or folder of the model")
    options = parser.parse_args(arguments)
    readable = [*options.read, Path(errors.__file__).parents[1], Path(__file__).parents[1]]
    confinement = confine(options.parent, readable, options.memory)
    threading.stack_size(_STACK_BYTES)
    WorkerProcess(Channel(socket.socket(fileno=options.control)), confinement).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
