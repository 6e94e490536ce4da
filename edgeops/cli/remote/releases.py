"""edgeops release list|show|upload and edgeops model list: what the manager holds."""

import json
import re
from collections.abc import Callable
from typing import Annotated, Any

import typer

from edgeops.wire.canonical import LIMIT
from edgeops.wire.errors import Misuse, Unreachable
from edgeops.wire.fields import ID

from .. import show
from ..client import Client, at, items
from ..frame import Run

VERSION = re.compile(r"[1-9][0-9]{0,15}")
Name = Annotated[str, typer.Argument(metavar="MODEL:VERSION", help="A release, e.g. digits:1.")]


def models(run: Run) -> None:
    """List the models the manager holds, with their latest version.

    Example: edgeops model list
    """
    found = items(run.client().get("/models"), "models")
    columns = ("model", "versions", "latest", "devices")
    rows = [(m.get("model") or m.get("name"), m.get("versions"), m.get("latest"), m.get("devices")) for m in found]
    run.emit({"models": found}, lambda: show.print_table(columns, rows, "no model yet; add one with `edgeops model add`"))


def releases(run: Run, model: Annotated[str | None, typer.Option(metavar="MODEL", help="Only of this model.")] = None) -> None:
    """List the signed releases the manager holds.

    Example: edgeops release list --model digits
    """
    found = [r for r in items(run.client().get("/releases"), "releases") if model in (None, r.get("model"))]
    columns = ("model", "version", "kind", "variants", "digest", "created", "signed by")
    rows = [
        (*map(r.get, ("model", "version", "kind")), _names(r.get("variants")), _short(r), show.when(r.get("created")), _signed(r))
        for r in found
    ]
    run.emit({"releases": found}, lambda: show.print_table(columns, rows, "no release yet; add one with `edgeops model add`"))


def release(run: Run, name: Name) -> None:
    """Show one release the manager holds: variants, sizes, inputs, digests.

    Example: edgeops release show digits:1
    """
    model, version = split_name(name)
    data = run.client().get(at("releases", model, str(version)))
    run.emit(data, lambda: show.pairs(data))


def split_name(text: str) -> tuple[str, int]:
    """MODEL:VERSION as its parts; raises Misuse("release-name")."""
    model, colon, version = text.rpartition(":")
    if not colon or not ID.fullmatch(model) or not VERSION.fullmatch(version) or int(version) > LIMIT:
        raise Misuse("release-name", f"{text!r} is not MODEL:VERSION with a whole number from 1, for example digits:1")
    return model, int(version)


def upload(client: Client, envelope: bytes, read: Callable[[str], bytes], said: Callable[[int], None]) -> dict[str, Any]:
    """Offer the signed release, send the objects the manager then asks for (`said(size)` after each), and offer it again.

    So a release that would be refused costs no upload, leaves nothing behind, and what the manager has is not sent again.
    """
    signed, sent = json.loads(envelope), set[str]()
    while True:
        answer, missing = client.offer_release(signed)
        if answer is not None:
            return answer if isinstance(answer, dict) else {}
        if stuck := sent & set(missing):
            raise Unreachable("upload-lost", f"the manager asks again for {min(stuck)[:12]}, which it was sent; is its disk whole?")
        for digest in missing:
            data = read(digest)
            client.put_object(digest, data)
            sent.add(digest)
            said(len(data))


def _signed(release: dict[str, Any]) -> str:
    """Who signed; a removed key is marked, and so is a release that devices believe no more."""
    removed = release.get("removed_keys") or ()
    names = [f"{name[:8]} (removed key)" if name in removed else str(name)[:8] for name in release.get("signed_by") or ()]
    return ", ".join(names) + ("" if release.get("believed", True) else "; not believed, sign it again")


def _short(release: dict[str, Any]) -> str:
    return str(release.get("digest", ""))[:12]


def _names(variants: Any) -> str:
    return ", ".join(variants) if isinstance(variants, dict) else show.plain(variants)
