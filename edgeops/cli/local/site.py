"""edgeops site …: where devices find the manager, as the signed site document tells them."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from edgeops.wire import envelope
from edgeops.wire.errors import Misuse

from .. import context, show
from ..frame import Run, command
from . import ceremony
from .ceremony import File, Folder, Ground, Keys, Out
from .signers import PassphraseFile

app = typer.Typer(help="Say anew where devices find the manager.", no_args_is_help=True)
Where = Annotated[
    Path | None,
    typer.Argument(metavar="DIR|FILE", help="The manager's folder (default: here, else the context's), or a half-signed file."),
]
Mqtt = Annotated[list[str] | None, typer.Option("--mqtt", metavar="URL", help="An MQTT endpoint before ours: where we move.")]
Https = Annotated[list[str] | None, typer.Option("--https", metavar="URL", help="Another HTTPS endpoint, before ours.")]


@command(app, "sign")
def sign(
    run: Run, where: Where = None, key: Keys = None, out: Out = None, mqtt: Mqtt = None, https: Https = None,
    passphrase_file: PassphraseFile = None,
) -> None:  # fmt: skip
    """Make, sign and publish the next site document from edgeops.toml; or add a signature to one in a file.

    A running manager sends it to every device. It listens as edgeops.toml says only after the next start: restart `edgeops up` once
    `edgeops site show` says that all devices have it. A device that was away meanwhile still knows the old endpoints.

    Example: edgeops site sign ./berlin
    """
    if where is not None and where.is_file():
        ceremony.sign_file(run, "site", where, key or [], None, passphrase_file)
        return
    here = ceremony.ground(run, where)
    data = next_document(run, here, key or [], passphrase_file, (tuple(mqtt or ()), tuple(https or ())))
    if answer := ceremony.hand_on(run, here, "site", data, out):
        _done(run, here, data, answer)


@command(app, "publish")
def publish(run: Run, file: File, folder: Folder = None) -> None:
    """Hand a whole site document to the manager, which sends it to every device; needs the role admin.

    Example: edgeops site publish site.half-signed.json
    """
    _done(run, *ceremony.publish_file(run, folder, "site", file))


@command(app, "show")
def show_(run: Run, folder: Folder = None) -> None:
    """Show the site document: endpoints, CAs, who signed it, and how many devices have it (as the running manager counts).

    Example: edgeops site show
    """
    from edgeops.manager.pki import pin_of
    from edgeops.manager.site import read_site

    here = ceremony.ground(run, folder)
    site = read_site(here.site)
    data = {
        "version": site.version, "mqtt": list(site.mqtt), "https": list(site.https), "cas": [pin_of(pem) for pem in site.cas],
        "signed_by": sorted(envelope.signers_of(here.site, "site")),
        "have": ceremony.have(run, here, "site"),
    }  # fmt: skip
    run.emit(data, lambda: show.pairs(data))


def next_document(
    run: Run, here: Ground, keys: list[str], passphrase_file: Path | None,
    beside: tuple[tuple[str, ...], tuple[str, ...]] = ((), ()), cas: tuple[str, ...] | None = None,
) -> bytes:  # fmt: skip
    """The next site document, signed with the keys at hand; raises Misuse where the manager's folder is not."""
    from edgeops.manager.site import next_site, read_site

    if here.place is None:
        raise Misuse("no-manager", "a site document is made from the manager's edgeops.toml; run this in the manager's folder")
    layout, before = here.place.layout, read_site(here.site)
    for urls, scheme in zip(beside, ("mqtts", "https"), strict=True):
        for text in urls:
            if "://" not in text:
                raise Misuse("bad-url", f"{text!r} says no scheme; write {scheme}://{text}")
    made = next_site(layout, here.place.settings, before, beside, cas or before.cas, int(time.time()))
    dropped = [url for url in (*before.mqtt, *before.https) if url not in (*made.mqtt, *made.https)]
    if dropped:
        text = f"warning: site document {made.version} no longer names {', '.join(dropped)}, as version {before.version} did; if"
        run.note(f"{text} the fleet is moving there, sign again with --mqtt and --https")
    return envelope.seal("site", made.payload(), ceremony.signers_for(here, "site", keys, passphrase_file))


def _done(run: Run, here: Ground, data: bytes, answer: dict[str, object]) -> None:
    from edgeops.manager.site import read_site

    site = read_site(data)
    if here.place is not None:
        _move_contexts(here.place.layout.certificate("ca"), site.https[-1] if len(site.https) == 1 else _own_url(here))
    told = {"mqtt": list(site.mqtt), "https": list(site.https)}
    text = f"site document {site.version} sends devices to {', '.join((*site.mqtt, *site.https))}"
    run.emit({**answer, **told, "published": True}, f"{text}\n{ceremony.said(answer)}")


def _own_url(here: Ground) -> str:
    from edgeops.manager.site import url

    assert here.place is not None
    return url("https", here.place.settings.addresses[0], here.place.settings.https_port)


def _move_contexts(ca: Path, url: str) -> None:
    """This machine's contexts of the manager follow it."""
    contexts = context.load()
    moved = {name: replace(held, url=url) if Path(held.ca) == ca else held for name, held in contexts.known.items()}
    if moved != contexts.known:
        context.save(replace(contexts, known=moved))
