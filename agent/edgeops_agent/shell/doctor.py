"""What keeps an agent from its work, found by looking only: each check says ok, warn or fail, what it means, what to do next.

Here: the folder and what lies in it. The machine around it and the way to the manager are in `surroundings`.
"""

import os
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgeops.wire.errors import EdgeopsError, Rejected

from ..core import record as records
from ..core.record import Record
from . import live, surroundings
from .credentials import files_of, read_pair
from .disk import StateFolder
from .fetching import RESERVE_BYTES
from .finding import Finding, Level
from .identity import Paths, load_signer
from .logbook import MOST_BYTES, Logbook
from .reach import https_ways, mqtt_ways, read_sites

EARLIEST = 1_735_689_600  # 2025-01-01: a clock before it was never set
DAY_S = 86_400
LOOKS = 3  # a copy may look torn because the agent is just writing it
ENROL = "run `edgeops-agent enroll TOKEN` with a token from your operator"
ANEW = "ask for a new token, move the folder away and run `edgeops-agent enroll TOKEN`"


def examine(root: Path, wall: float) -> Iterator[Finding]:
    """All findings about the agent's folder `root`; `wall` is the device's own clock in Unix seconds. Changes nothing."""
    folder = StateFolder(root)
    yield from _folder(root)
    try:
        record = folder.load()
    except EdgeopsError as error:
        enrolled = error.reason == "record-lost"
        yield Finding("record", "fail", error.message, ANEW if enrolled else "" if error.reason == "state-folder" else ENROL)
        yield from surroundings.machine(root)
        return
    yield from _copies(folder, record)
    said = live.ask(root)
    now = max(int(wall), record.trust.time_floor) if said is None else int(said.get("now", wall))
    yield surroundings.agent(root, said)
    yield _clock(int(wall), record)
    yield _space(folder, record)
    yield from _keys(root, now)
    yield _log(root)
    yield from _ways(folder, record)
    yield from surroundings.machine(root)


def _folder(root: Path) -> Iterator[Finding]:
    """Keys lie there: it must be ours and closed, or the agent refuses it."""
    try:
        status = root.stat()
    except OSError as error:
        yield Finding("folder", "fail", f"{root}: {error.strerror}", f"{ENROL}, or name another folder with --state")
        return
    if status.st_uid != os.geteuid():
        text = f"{root} belongs to user {status.st_uid}, this is user {os.geteuid()}"
        yield Finding("folder", "fail", text, "run this as that user, or as root")
    elif stat.S_IMODE(status.st_mode) & 0o077:
        yield Finding("folder", "warn", f"{root} is open to other users", f"chmod 700 {root}; the agent does so when it starts")
    else:
        yield Finding("folder", "ok", str(root))
    paths = Paths(root)
    private = [path for path in (paths.identity, paths.pair, paths.tls_key, *root.glob("record.*")) if path.exists()]
    for path in private:
        if path.stat().st_mode & 0o077 and path.suffix in (".key", ".pem"):
            yield Finding("permissions", "fail", f"{path} can be read by others", f"chmod 600 {path}")
    foreign = [path for path in private if path.stat().st_uid != status.st_uid]
    for path in foreign:
        yield Finding("permissions", "fail", f"{path} is not the folder's user's", f"chown {status.st_uid} {path}")


def _copies(folder: StateFolder, record: Record) -> Iterator[Finding]:
    """Three copies: two that take turns, and one of what must outlive them."""
    for name, data in _settled(folder).items():
        if records.is_torn(data):
            text = f"record.{name} is torn; the agent goes on with what is left and asks the manager before it takes orders"
            yield Finding(f"record {name}", "warn", text, "nothing now; if it comes back, check the disk or replace the card")
        elif data is None:
            yield Finding(f"record {name}", "ok", "not written yet")
        else:
            yield Finding(f"record {name}", "ok", f"save {records.decode(data)[0]}, whole")
    try:
        records.decode(folder.files.read(folder.keepsake))
        yield Finding("keepsake", "ok", "whole")
    except (OSError, Rejected) as error:
        text = f"the third copy cannot be read: {error}"
        yield Finding("keepsake", "warn", text, "run the agent, which writes it anew; if it comes back, check the disk")
    if record.unsure:
        text = "a newer record may have existed, so no order is taken until the manager has answered"
        yield Finding("orders", "warn", text, "let the agent reach its manager once")


def _settled(folder: StateFolder) -> dict[str, bytes | None]:
    copies = folder.copies()
    for _ in range(LOOKS - 1):
        if not any(map(records.is_torn, copies.values())):
            break
        time.sleep(0.05)
        copies = folder.copies()
    return copies


def _clock(wall: int, record: Record) -> Finding:
    shown, floor = time.strftime("%Y-%m-%d %H:%M", time.gmtime(wall)), record.trust.time_floor
    if wall < max(floor, EARLIEST):
        text = f"it says {shown}, but later times were signed" if wall < floor else f"it says {shown}: it was never set"
        advice = "nothing for the agent, which goes by signed time; set the clock for the sake of other programs"
        return Finding("clock", "warn", text, advice)
    return Finding("clock", "ok", shown)


def _space(folder: StateFolder, record: Record) -> Finding:
    """An update needs room for all it brings, beside what runs and what is kept to go back to."""
    try:
        status = os.statvfs(folder.root)
        held = sum(path.stat().st_size for path in folder.objects.iterdir())
    except OSError as error:
        return Finding("disk", "fail", f"{folder.root}: {error.strerror}", "check the disk")
    free, told = status.f_bavail * status.f_frsize, f"{status.f_bavail * status.f_frsize >> 20} MiB free"
    ordered = max((slot.target.most_bytes for slot in record.slots.values() if slot.target and slot.phase != "idle"), default=0)
    if status.f_flag & os.ST_RDONLY:
        return Finding("disk", "fail", "mounted read-only: nothing can be saved", "look for disk errors (dmesg), mount it writable")
    if status.f_files and not status.f_favail:
        return Finding("disk", "fail", "no file can be made: all inodes are used", "delete files on this file system")
    if free < RESERVE_BYTES + ordered:
        text = f"{told}, {RESERVE_BYTES + ordered >> 20} MiB are needed" + (" for the order at hand" if ordered else "")
        return Finding("disk", "fail", text, "free some space; what runs goes on meanwhile")
    if free < RESERVE_BYTES + held:
        text = f"{told}: an update as large as what is held ({held >> 20} MiB) may not fit"
        return Finding("disk", "warn", text, "free some space")
    return Finding("disk", "ok", told)


def _keys(root: Path, now: int) -> Iterator[Finding]:
    paths = Paths(root)
    try:
        load_signer(paths)
        yield Finding("identity", "ok", "the key can be read")
    except EdgeopsError as error:
        yield Finding("identity", "fail", error.message, ANEW)
    pair = read_pair(paths)
    if pair is None:
        where = " or ".join(dict.fromkeys(str(path) for path in files_of(paths)))
        text = f"no pair of key and certificate can be used ({where})"
        yield Finding("certificate", "fail", text, "run the agent: it asks for a new one with its identity key")
        return
    begins, ends = (int(at.timestamp()) for at in (pair.certificate.not_valid_before_utc, pair.certificate.not_valid_after_utc))
    days, level = (ends - now) // DAY_S, "ok"
    text, advice = f"{days} days left", ""
    if now > ends:
        level, text = "fail", f"ended {-days} days ago"
        advice = "run the agent within reach of its manager: it asks for a new one; an operator may have to approve it"
    elif now >= pair.renew_at:
        level, advice = "warn", "nothing: the agent asks for a new one; if this stays, look whether the manager answers below"
    elif now < begins:
        level, text = "warn", "begins in the future by what time it is believed to be"
        advice = "let the agent reach its manager once"
    found: Level = "ok" if level == "ok" else "warn" if level == "warn" else "fail"
    yield Finding("certificate", found, text, advice)


def _log(root: Path) -> Finding:
    book = Logbook(root)
    taken = sum(path.stat().st_size for path in (book.path, book.older) if path.exists())
    if taken > 2 * MOST_BYTES:
        text = f"{taken >> 10} KiB in {book.path.parent}, more than the agent writes"
        return Finding("log", "warn", text, "remove what others have put there")
    return Finding("log", "ok", f"{taken >> 10} KiB of at most {2 * MOST_BYTES >> 10}")


def _ways(folder: StateFolder, record: Record) -> Iterator[Finding]:
    """Every address of the site documents is tried, all at once: one that is silent takes long."""
    sites, floor = read_sites(folder, Paths(folder.root), record), record.trust.time_floor
    if not sites:
        advice = "ask your operator for the site document and put it at site.json in the folder, or enrol again"
        yield Finding("site", "fail", "no site document can be read, so nobody can be reached", advice)
        return
    paths = files_of(Paths(folder.root))
    checks = [lambda way=way: surroundings.manager(way, floor) for way in https_ways(sites)]
    checks += [lambda way=way: surroundings.broker(way, floor, paths) for way in mqtt_ways(sites)]
    with ThreadPoolExecutor(8) as pool:
        yield from pool.map(lambda check: check(), checks)
