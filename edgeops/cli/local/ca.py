"""edgeops ca …: replacing the CA of the fleet without visiting a device, in two steps with a time in between."""

from typing import Annotated

import typer

from edgeops.wire.errors import Misuse

from ..frame import Run, command
from . import ceremony
from .ceremony import Folder, Ground, Keys, Out
from .place import Place
from .signers import PassphraseFile
from .site import next_document

app = typer.Typer(help="Replace the CA that signs the server's and the devices' certificates.", no_args_is_help=True)
Stolen = Annotated[bool, typer.Option("--stolen", help="Refuse certificates of the old CA at once.")]
Behind = Annotated[bool, typer.Option("--leave-behind", help="Finish though some devices do not know the new CA: they are lost.")]


@command(app, "rotate")
def rotate(run: Run, key: Keys = None, out: Out = None, folder: Folder = None, passphrase_file: PassphraseFile = None) -> None:
    """Make a new CA and a site document that lists both: devices learn the new one, and get new certificates from it.

    Run it in the manager's folder; a running manager's broker starts anew. Then wait until all devices have it, and finish.

    Example: edgeops ca rotate
    """
    from edgeops.manager.authority import new_ca
    from edgeops.manager.site import read_site

    here, place = _here(run, folder)
    before = read_site(here.site).cas
    if len(before) > 1:
        raise Misuse("ca-rotating", "the site document lists two CAs already; `edgeops ca finish` drops the old one")
    keys = ceremony.signers_for(here, "site", key or [], passphrase_file)  # before a CA is made that nobody would sign for
    made = new_ca(place.layout, place.settings, int(_now()))
    data = next_document(run, here, key or [], passphrase_file, cas=(*before, made.certificate_pem.decode()))
    answer = ceremony.hand_on(run, here, "site", data, out) if keys else None
    if answer:
        text = "once `edgeops site show` says that all devices have it, run `edgeops ca finish`"
        run.emit({**answer, "ca": made.pin, "published": True}, f"{ceremony.said(answer)}\n{text}")


@command(app, "finish")
def finish(
    run: Run, key: Keys = None, out: Out = None, stolen: Stolen = False, leave_behind: Behind = False, folder: Folder = None,
    passphrase_file: PassphraseFile = None,
) -> None:  # fmt: skip
    """Switch the server to the new CA and drop the old one, after all devices have heard of the new one.

    Certificates that the old CA gave to devices stay welcome until they end; with --stolen they are refused from now on. Enrolment
    tokens and join lines that were not spent yet name the old CA: they are dead; give out new ones.

    Example: edgeops ca finish
    """
    from edgeops.manager.authority import refuse
    from edgeops.manager.pki import pin_of
    from edgeops.manager.site import read_site

    here, place = _here(run, folder)
    before = read_site(here.site).cas
    if len(before) < 2:
        raise Misuse("ca-not-rotating", "the site document lists one CA only; `edgeops ca rotate` makes the new one")
    if not leave_behind:
        _check_all_know(run, place)
    data = next_document(run, here, key or [], passphrase_file, cas=(before[-1],))
    if stolen:
        refuse(place.layout, {pin_of(pem) for pem in before[:-1]})
    if answer := ceremony.hand_on(run, here, "site", data, out):
        text = "open enrolment tokens and join lines name the old CA and are dead: give out new ones; copies of ca.crt on other"
        text += " machines need the new one too"
        run.emit({**answer, "ca": pin_of(before[-1]), "published": True}, f"{ceremony.said(answer)}\n{text}")


def _here(run: Run, folder: Folder) -> tuple[Ground, Place]:
    here = ceremony.ground(run, folder)
    if here.place is None:
        raise Misuse("no-manager", "the CA lies in the manager's folder; run this there, or give --folder")
    return here, here.place


def _check_all_know(run: Run, place: Place) -> None:
    client = ceremony.client_of(run, place)
    try:
        counted = client.get("/documents")
    finally:
        client.close()
    behind = counted["devices"] - counted["have"]["site"]
    if behind:
        text = f"{behind} of {counted['devices']} devices do not know the new CA yet and would never find back; wait for them"
        raise Misuse("devices-behind", f"{text}, decommission them, or give them up with --leave-behind")


def _now() -> float:
    import time

    return time.time()
