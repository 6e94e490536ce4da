"""edgeops init: a new manager in a folder, and the context that makes the next command just work."""

import contextlib
import ipaddress
import re
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeops.broker.reach import claim_port
from edgeops.manager.layout import Layout
from edgeops.manager.settings import BROKERS, Settings, settings_from
from edgeops.wire.errors import Misuse

from .. import context
from ..context import Context, Contexts, check_name
from ..frame import Run

if TYPE_CHECKING:
    from edgeops.manager.setup import Setup

HOST = re.compile(r"[A-Za-z0-9.:-]{1,253}")
EVERYWHERE = "0.0.0.0"  # noqa: S104 only when --address names more than this machine
Address = Annotated[
    list[str] | None,
    typer.Option("--address", metavar="HOST", help="Name or IP devices reach us by; repeat for more. Default: this machine only."),
]
Port = typer.Option(min=0, max=65535, help="Port of API and enrolment; 0 picks a free one.")
MqttPort = typer.Option(min=0, max=65535, help="Port of the broker; 0 picks a free one.")
Called = typer.Option("--name", metavar="CONTEXT", help="Name of the context (default: the fleet's).")


def init(
    run: Run,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where keys, database and objects go.")] = Path(),
    fleet: Annotated[str, typer.Option(metavar="NAME", help="Name of the fleet; stands in every signed document.")] = "fleet",
    address: Address = None,
    https_port: Annotated[int, Port] = Settings().https_port,
    mqtt_port: Annotated[int, MqttPort] = Settings().mqtt_port,
    broker: Annotated[str, typer.Option(help=f"Which broker `up` starts: {', '.join(BROKERS)}.")] = Settings().broker,
    name: Annotated[str | None, Called] = None,
) -> None:
    """Make a new manager: root, site, release and online keys, CA, database, settings, and an admin token in a new context.

    Example: edgeops init ./berlin --fleet berlin --address manager.example.org
    """
    from edgeops.manager.setup import check_free as check_folder

    known, called = context.load(), name or fleet
    check_folder(Layout(folder.resolve()))
    given = list(dict.fromkeys(address or []))
    bad = [host for host in given if not HOST.fullmatch(host)]
    if bad:
        raise Misuse("bad-address", f"{bad[0]!r} is no host name or IP address")
    chosen = settings_from({
        "fleet": fleet, "addresses": given or own_addresses(),
        "bind": "127.0.0.1" if all(map(_is_loopback, given)) else EVERYWHERE,
        "https_port": https_port or claim_port("127.0.0.1", 0), "mqtt_port": mqtt_port or claim_port("127.0.0.1", 0),
        "broker": broker,
    })  # fmt: skip
    check_free(known, called)
    # Before anything is made: an admin token that cannot be kept would be lost, and with it the manager.
    context.save(known)
    made = create(folder, chosen, int(time.time()))
    ca = str(made.ca.resolve())
    stored = context.save(known.added(Context(called, made.url, ca, made.admin_token)))
    data = {"folder": str(made.folder.resolve()), "fleet": fleet, "url": made.url, "ca": ca, "context": called}
    run.emit(data, lambda: _say(made, called, stored))


def create(folder: Path, settings: Settings, now: int) -> "Setup":
    """Make the manager; raises Misuse("already-initialised") when one is there."""
    from edgeops.manager.setup import initialise

    return initialise(folder.resolve(), settings.fleet, settings.addresses, now, settings)


def check_free(known: Contexts, name: str) -> None:
    """Raise Misuse("context-name"), or "context-exists" for a manager that is still there: its admin token would be lost."""
    check_name(name)
    held = known.known.get(name)
    if held is not None and Path(held.ca).exists():
        text = f"there is a context {name!r} already, for {held.url}; choose another with --name, or another --fleet"
        raise Misuse("context-exists", text)


def own_addresses() -> list[str]:
    """localhost first, then this machine's name and LAN address where it has one."""
    found = ["localhost", "127.0.0.1"]
    host = socket.gethostname()
    found += [host] if HOST.fullmatch(host) else []
    with contextlib.suppress(OSError):  # a machine whose own name does not resolve is reached by localhost
        found += [str(info[4][0]) for info in socket.getaddrinfo(host, None, socket.AF_INET)]
    return list(dict.fromkeys(found))[:8]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _say(made: "Setup", called: str, stored: Path) -> None:
    print(f"Made a manager for fleet {made.fleet} in {made.folder}.")
    print(f"Context {called!r} ({made.url}) is current; its admin token is in {stored}.")
    print("Keep keys/root.key and keys/site.key offline; move keys/release.key to whoever publishes models.")
    print(f"\nNext:  edgeops up {made.folder}\nthen:  edgeops status")
