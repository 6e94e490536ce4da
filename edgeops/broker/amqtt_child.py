"""The built-in broker's process: `python -m edgeops.broker.amqtt_child SETTINGS`, ended by the end of its standard input.

An `H [names]` line on standard input reloads revocation list and passwords and disconnects the named devices; a line answers it.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from typing import Any

from .amqtt_guard import GuardedBroker, check_amqtt
from .ports import RELOADED

_ORDER_BYTES = 16 << 20
_CONNECTIONS = 400


def _config(settings: dict[str, Any]) -> dict[str, Any]:
    host = f"[{settings['host']}]" if ":" in settings["host"] else settings["host"]
    ours = {"max_connections": _CONNECTIONS, "ssl": True, "certfile": settings["cert"], "keyfile": settings["key"]}
    listeners = {"default": {**ours, "type": "tcp", "bind": f"{host}:{settings['port']}", "cafile": settings["ca"]}}
    if settings["wss_port"]:
        listeners["browsers"] = {**ours, "type": "ws", "bind": f"{host}:{settings['wss_port']}"}
    return {"listeners": listeners, "plugins": {}}


async def _obey(broker: GuardedBroker, reader: asyncio.StreamReader) -> None:
    while line := await reader.readline():
        word, _, names = line.decode().strip().partition(" ")
        if word == "H":
            await broker.reload(json.loads(names or "[]"))
            print(RELOADED, flush=True)  # noqa: T201 our parent reads it


async def _serve(settings: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_ORDER_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    broker = GuardedBroker(_config(settings), settings["crl"], settings["passwords"])
    await broker.start()
    orders = asyncio.ensure_future(_obey(broker, reader))
    loop.add_signal_handler(signal.SIGTERM, orders.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await orders
    # Nothing is kept on disk and MQTT 3.1.1 knows no farewell of the server: the kernel closes all sockets at once, where amqtt's
    # own shutdown waits for clients that may never answer.
    os._exit(0)


def main() -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(message)s")
    # amqtt warns of every refused handshake and lost client; ours are the lines that begin with "Denied".
    logging.getLogger("edgeops.broker").setLevel(logging.INFO)
    check_amqtt()
    asyncio.run(_serve(json.loads(sys.argv[1])))


if __name__ == "__main__":
    main()
