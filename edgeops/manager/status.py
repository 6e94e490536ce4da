"""The fleet at a glance."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from edgeops.fleet.selector import parse_selector
from edgeops.store import audit, rows
from edgeops.store.tables import devices, rollouts
from edgeops.wire.chain import fits

from . import telemetry
from .devices import view
from .hub import Hub

REFUSED = "refused_"
OUT = ("revoked", "decommissioned")


def selected(hub: Hub, selector: str | None) -> list[dict[str, Any]]:
    """Devices a selector matches (all without one), by id; an empty list is an answer, not an error."""
    wanted = parse_selector(selector) if selector else None
    with hub.store.read() as tx:
        found = rows.find(tx, devices)
        return [view(hub, tx, row) for row in found if wanted is None or wanted.matches({**row["labels"], "id": row["id"]})]


def overview(hub: Hub, selector: str | None) -> dict[str, Any]:
    """Each device with presence, what it runs, latency, drift and what it refused; and sums."""
    shown = selected(hub, selector)
    with hub.store.read() as tx:
        by_device: dict[str, list[telemetry.Running]] = {}
        for item in telemetry.running(tx):
            by_device.setdefault(item.device, []).append(item)
        rolling = Counter(row["status"] for row in rows.find(tx, rollouts))
        table = []
        for device in shown:
            items = by_device.get(device["id"], [])
            sketches = [window for item in items for window in telemetry.windows_of(tx, item.device, item.release)]
            drifts = [telemetry.drift_of(hub, tx, item) for item in items]
            table.append(_row(device, telemetry.summary(sketches), drifts))
    return {
        "devices": table, "presence": dict(Counter(_counted(row) for row in table)), "rollouts": dict(rolling),
        "drifting": sum(row["drift"]["alarm"] is True for row in table), "clones": sum(row["status"] == "clone" for row in table),
    }  # fmt: skip


def _counted(row: Mapping[str, Any]) -> str:
    """As what a device counts in the sums: one that is out is out, whatever it was heard to say lately."""
    return str(row["status"] if row["status"] in OUT else row["presence"])


def _row(device: Mapping[str, Any], summary: Mapping[str, Any], drifts: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("id", "labels", "status", "presence", "slots", "reported", "device_class", "last_seen", "counters")
    alarms = [drift["alarm"] for drift in drifts if drift["alarm"] is not None]
    return {name: device[name] for name in names} | {
        "p50_us": summary["p50_us"], "p99_us": summary["p99_us"], "inferences": summary["calls"], "errors": summary["errors"],
        "drift": {"alarm": any(alarms) if alarms else None, "slots": drifts}, "refused": refused(device["counters"]),
    }  # fmt: skip


def refused(counters: Mapping[str, int]) -> int:
    """How many documents and frames a device says it refused; names with a dot only break the others down."""
    return sum(count for name, count in counters.items() if name.startswith(REFUSED) and "." not in name)


def audited(hub: Hub, most: int, **wanted: Any) -> dict[str, Any]:
    """Entries of the audit log, newest last, and whether they fit together; whether all do is for `edgeops audit verify`.

    What is `wanted` are the fields of `edgeops.store.audit.Wanted`.
    """
    with hub.store.read() as tx:
        found = audit.page(tx, most, audit.Wanted(**wanted))
    return {"audit": found, "intact": (broken := first_broken(found)) is None, "broken_at": broken}


def first_broken(entries: list[dict[str, Any]]) -> int | None:
    """The first entry that was changed or does not follow on its neighbour, None when there is none."""
    for before, entry in zip([None, *entries], entries, strict=False):
        follows = before is None or before["number"] + 1 < entry["number"] or entry["previous"] == before["digest"]
        if not follows or not fits(entry):
            return int(entry["number"])
    return None
