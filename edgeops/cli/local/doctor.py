"""edgeops doctor: everything about a manager's folder and machine that can be checked without changing anything."""

import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from cryptography import x509

from edgeops.broker.mosquitto import find_mosquitto
from edgeops.broker.reach import claim_port
from edgeops.manager.layout import Layout
from edgeops.manager.settings import Settings
from edgeops.wire.errors import EdgeopsError
from edgeops.wire.rotation import read_root

from .. import context, show
from ..client import Client
from ..frame import Run
from .key import unnamed
from .place import Dir, Place, must_find

EARLIEST = 1_735_689_600  # 2025-01-01: a clock before it was never set
DAY_S = 86_400
OFFLINE = ("root", "site", "release")
Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what, how it went, and what to do when it did not go well."""

    check: str
    level: Level
    detail: str


def doctor(run: Run, folder: Dir = None) -> int:
    """Check a manager's folder and machine: files, permissions, keys, certificates, broker, ports, clock. Exit 1 when one fails.

    Example: edgeops doctor ./berlin
    """
    place = must_find(folder, run.context)
    found = list(examine(place, int(time.time())))
    rows = [(item.check, item.level, item.detail) for item in found]
    run.emit({"findings": [asdict(item) for item in found]}, lambda: show.print_table(("check", "", "detail"), rows))
    return 1 if any(item.level == "fail" for item in found) else 0


def examine(place: Place, now: int) -> Iterator[Finding]:
    """All findings about the manager in `place`; `now` in Unix seconds."""
    yield from _files(place.layout)
    yield from _private(place.layout)
    yield from _signing(place, now)
    yield from _certificates(place.layout, now)
    yield _broker(place)
    yield from _ports(place)
    yield Finding("clock", "ok", show.when(now)) if now > EARLIEST else Finding("clock", "fail", f"says {show.when(now)}; set it")
    yield _contexts()


def _files(layout: Layout) -> Iterator[Finding]:
    wanted = [layout.database, layout.blobs, layout.document("root-1"), layout.document("site-1")]
    missing = [str(path) for path in wanted if not path.exists()]
    if missing:
        yield Finding("folder", "fail", f"missing: {', '.join(missing)}; restore a backup")
    else:
        yield Finding("folder", "ok", str(layout.root))


def _private(layout: Layout) -> Iterator[Finding]:
    paths = [*sorted((layout.root / "keys").glob("*")), *sorted((layout.root / "pki").glob("*.key")), layout.database]
    loose = [path for path in paths if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077]
    for path in loose:
        yield Finding("permissions", "fail", f"{path} can be read by others; chmod 600 {path}")
    if not loose:
        yield Finding("permissions", "ok", f"{len(paths)} private files are 0600")


def _signing(place: Place, now: int) -> Iterator[Finding]:
    """Documents that devices believe, the online key, offline keys that are near, roles that one stolen key is enough for."""
    from edgeops.manager.papers import read_papers

    yield from _key_files(place.layout)
    try:
        papers = read_papers(place.layout, place.settings, now)
    except EdgeopsError as error:
        yield Finding("documents", "fail", error.message)
        return
    single = [role for role in OFFLINE if papers.root.roles[role].threshold < 2]
    if single:
        text = f"one key is enough for {', '.join(single)}: fine for one machine; for production see docs/keys.md"
        yield Finding("thresholds", "warn", text)
    else:
        yield Finding("thresholds", "ok", "no single offline key can sign alone")
    for kind in papers.stale:
        how = "`edgeops site sign`" if kind == "site" else "`edgeops floor raise`"
        yield Finding("documents", "fail", f"a key that the root no longer names has signed the {kind}; sign it anew with {how}")
    if not papers.stale:
        yield Finding("documents", "ok", f"root {papers.root.version}, site {papers.trust.site_version}, epoch {papers.root.epoch}")
    yield _endpoints(place.settings, papers.site)


def _key_files(layout: Layout) -> Iterator[Finding]:
    """Keys in use that are near, and files of keys that are in use no more."""
    try:
        idle = unnamed(layout, read_root(layout.newest("root").read_bytes()))
    except EdgeopsError as error:
        yield Finding("offline keys", "fail", error.message)
        return
    aside = {path for _, path in idle}
    near = [role for role in OFFLINE if set(layout.keys(role)) - aside]
    if near:
        text = f"{', '.join(near)} key beside the manager: whoever takes this machine can sign; move them elsewhere"
        yield Finding("offline keys", "warn", text)
    else:
        yield Finding("offline keys", "ok", "only the online key is here")
    for name, path in idle:
        text = f"{path}: the current root does not name its key {name[:8]}; unless a proposed root will, remove it"
        yield Finding("idle key file", "warn", text)


def _endpoints(settings: Settings, site: bytes) -> Finding:
    """What `edgeops up` would refuse: devices sent to where nobody answers."""
    from edgeops.manager.site import check_site

    try:
        check_site(settings, site)
    except EdgeopsError as error:
        return Finding("site", "fail", error.message)
    return Finding("site", "ok", "sends devices where edgeops.toml says")


def _certificates(layout: Layout, now: int) -> Iterator[Finding]:
    for name in ("ca", "server", "manager"):
        path = layout.certificate(name)
        try:
            left = int((x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp() - now) // DAY_S)
        except (OSError, ValueError) as error:
            yield Finding(f"certificate {name}", "fail", f"{path} cannot be read: {error}; restore a backup")
            continue
        level: Level = "fail" if left < 0 else "warn" if left < 30 else "ok"
        yield Finding(f"certificate {name}", level, f"{left} days left" if left >= 0 else f"ended {-left} days ago; make a new one")


def _broker(place: Place) -> Finding:
    program, wanted = find_mosquitto(), place.settings.broker
    if program and wanted != "built-in":
        return Finding("broker", "ok", f"mosquitto at {program}")
    if wanted == "mosquitto":
        return Finding("broker", "fail", "edgeops.toml asks for mosquitto, but there is none; install it or set broker = \"auto\"")
    return Finding("broker", "ok", "the built-in one, meant for up to about 100 devices; install mosquitto for more")


def _ports(place: Place) -> Iterator[Finding]:
    ours = _answering(place)
    for what, port in (("https", place.settings.https_port), ("mqtt", place.settings.mqtt_port)):
        try:
            claim_port(place.settings.bind, port)
            yield Finding(f"port {what}", "ok", f"{port} is free")
        except EdgeopsError as error:
            said: tuple[Level, str] = ("ok", f"{port}: this manager is running") if ours else ("fail", error.message)
            yield Finding(f"port {what}", *said)


def _answering(place: Place) -> bool:
    """Whether this very manager (its CA, its fleet) answers at its own address."""
    from edgeops.manager.site import url

    settings = place.settings
    ca = str(place.layout.certificate("ca"))
    client = Client(context.Context("doctor", url("https", settings.addresses[0], settings.https_port), ca, ""))
    try:
        return bool(client.get("/health").get("fleet") == settings.fleet)
    except EdgeopsError:
        return False
    finally:
        client.close()


def _contexts() -> Finding:
    path = context.path()
    if not path.exists():
        return Finding("contexts", "warn", f"{path} does not exist; `edgeops init` writes it")
    loose = stat.S_IMODE(path.stat().st_mode) & 0o077
    if loose:
        return Finding("contexts", "fail", f"{path} can be read by others; chmod 600 {path}")
    return Finding("contexts", "ok", str(path))
