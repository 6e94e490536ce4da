"""Telemetry windows of devices, merged: calls, latency, gaps, and whether traffic has left the release's reference."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, delete, func, select

from edgeops.parcel.manifest import Manifest
from edgeops.sketch.drift import DriftVerdict, scan
from edgeops.sketch.reference import ReferenceProfile
from edgeops.sketch.window import SketchWindow, Tally
from edgeops.store import rows
from edgeops.store.rows import Row
from edgeops.store.tables import releases, reports, windows
from edgeops.wire.errors import EdgeopsError

from . import releases as release_noun
from .hub import Hub

RECENT = 64
By = Literal["device", "release", "fleet"]
FINDINGS = 5


@dataclass(frozen=True, slots=True)
class Running:
    """What a device reports to run in one slot."""

    device: str
    slot: str
    model: str
    version: int
    release: str
    variant: str


def running(tx: Connection, device: str | None = None) -> list[Running]:
    """Every reported slot that runs something, of one device or all."""
    found = rows.find(tx, reports, **({"device": device} if device else {}))
    return [
        Running(row["device"], slot, said["model"], said["version"], said["release"], said.get("variant", ""))
        for row in found for slot, said in row["slots"].items() if said.get("release") and said.get("model")
    ]  # fmt: skip


def windows_of(tx: Connection, device: str, release: str, most: int = RECENT) -> list[SketchWindow]:
    """The newest windows of a device counted under a release, oldest first."""
    columns = windows.c
    query = select(columns.body).where(columns.device == device, columns.release8 == release[:16])
    query = query.order_by(columns.started_ms.desc(), columns.seq.desc()).limit(most)
    return [SketchWindow.from_bytes(body) for body in reversed(tx.execute(query).scalars().all())]


def forget(tx: Connection, before: int, most: int) -> None:
    """Drop windows received before `before`, and of each device what came before its newest `most` (to the second)."""
    columns = windows.c
    tx.execute(delete(windows).where(columns.received < before))
    counts = select(columns.device).group_by(columns.device).having(func.count() > most)
    for device in tx.execute(counts).scalars().all():
        newest = select(columns.received).where(columns.device == device).order_by(columns.received.desc())
        last = tx.execute(newest.offset(most - 1).limit(1)).scalar()
        tx.execute(delete(windows).where(columns.device == device, columns.received < last))


def listed(hub: Hub, device: str | None = None, by: By = "device") -> list[dict[str, Any]]:
    """All windows merged, exactly: a row for each device and release, for each release ("release") or one for all ("fleet")."""
    with hub.store.read() as tx:
        names = {row["digest"][:16]: row for row in rows.find(tx, releases)}
        columns = windows.c
        query = select(columns.device, columns.release8, columns.boot, columns.seq, columns.body)
        if device:
            query = query.where(columns.device == device)
        groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in tx.execute(query.order_by(columns.device, columns.started_ms)).mappings():
            groups[row["device"] if by == "device" else "", "" if by == "fleet" else row["release8"]].append(dict(row))
    return [_merged(name, names.get(release8), release8, found) for (name, release8), found in groups.items()]


def _merged(device: str, release: Row | None, release8: str, found: list[Row]) -> dict[str, Any]:
    sketches = [SketchWindow.from_bytes(row["body"]) for row in found]
    runs: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for row in found:
        runs[row["device"], row["boot"], row["release8"]].append(row["seq"])
    gaps = sum(max(seqs) - min(seqs) + 1 - len(seqs) for seqs in runs.values())
    return {
        "device": device, "devices": len({row["device"] for row in found}),
        "model": release["model"] if release else "", "version": release["version"] if release else 0,
        "release": release["digest"] if release else release8, "windows": len(found), "gaps": gaps, **summary(sketches),
        "from_ms": min(s.start_ms for s in sketches), "to_ms": max(s.start_ms + s.duration_ms for s in sketches),
    }  # fmt: skip


def summary(sketches: list[SketchWindow]) -> dict[str, Any]:
    """Calls, errors and latency (µs) of windows; None for quantiles nobody measured. Probes are left out: profiles may differ."""
    total = Tally()
    for sketch in sketches:
        tally = sketch.tally
        total = total.merge(Tally(0, tally.calls, tally.errors, tally.invalid, tally.dropped, latency=tally.latency))
    known = total.latency.count > 0
    return {
        "calls": total.calls, "errors": total.errors, "invalid": total.invalid, "dropped": total.dropped,
        "p50_us": round(total.latency.quantile(0.5)) if known else None,
        "p99_us": round(total.latency.quantile(0.99)) if known else None,
    }  # fmt: skip


def drift(hub: Hub, device: str | None = None) -> list[dict[str, Any]]:
    """The drift verdict of every device and slot, over windows of the running release only."""
    with hub.store.read() as tx:
        return [drift_of(hub, tx, item) for item in running(tx, device)]


def drift_of(hub: Hub, tx: Connection, item: Running) -> dict[str, Any]:
    """The drift verdict of one slot; `verdict` says "no-reference" or "no-telemetry" when there is nothing to judge."""
    head = {"device": item.device, "slot": item.slot, "model": item.model, "version": item.version}
    reference = _reference(hub, tx, item)
    if reference is None:
        return head | _unjudged("no-reference")
    # A window that names this profile with other probes is a lie of its device; it must not spoil anybody's answer.
    shape = reference.counts.shape
    recent = windows_of(tx, item.device, item.release)
    found = [window for window in recent if window.profile == reference.hash8 and window.tally.probes.shape == shape]
    if not any(window.tally.n for window in found):
        return head | _unjudged("no-telemetry")
    return head | _judged(scan(found, reference, top=FINDINGS), len(found))


def _judged(verdict: DriftVerdict, count: int) -> dict[str, Any]:
    top = verdict.probes[0] if verdict.probes else None
    return {
        "verdict": "drift" if verdict.alarm else "ok" if verdict.scale else "too-few", "alarm": verdict.alarm, "p": verdict.p_value,
        "threshold": verdict.threshold, "effect": top.effect if top else None, "n": verdict.n, "scale": verdict.scale,
        "windows": count,
        "probes": [
            {
                "probe": finding.probe.name, "kind": finding.probe.kind, "cause": finding.cause, "p": finding.p_value,
                "statistic": finding.statistic, "effect": finding.effect, "direction": finding.direction,
            }
            for finding in verdict.probes
        ],
    }  # fmt: skip


def _unjudged(why: str) -> dict[str, Any]:
    return {
        "verdict": why, "alarm": None, "p": None, "threshold": None, "effect": None, "n": 0, "scale": 0, "windows": 0, "probes": [],
    }  # fmt: skip


def _reference(hub: Hub, tx: Connection, item: Running) -> ReferenceProfile | None:
    row = rows.get(tx, releases, digest=item.release)
    variant = release_noun.read(row).variants.get(item.variant) if row else None
    if variant is None:
        return None
    try:
        reference = Manifest.decode(hub.blobs.read(variant.manifest.sha256)).reference
        return ReferenceProfile.from_bytes(hub.blobs.read(reference.sha256)) if reference else None
    except EdgeopsError:
        return None
