"""Signed metadata per update, ours and a TUF repository's: bytes for who is updated, bytes for everybody else, CPU ratio.

Ours is what real enrolled devices of a real manager receive (tapped_fleet.py), by document kind: root, site, time, release, stream
(the list of frames), desired (the order), command. `order + release` is the size of the very message if it held only these two,
as they travel: for the first order, a release of 2 variants, and for the update, a release of 3. The stream list and the MQTT
packet are printed beside it, not hidden in it. The peer (tuf_fleet.py) is python-tuf in an environment of its own under .bench,
built once with pip, measured with the real `tuf.ngclient.Updater` in the same run. KB is 1,000 bytes. CPU is interleaved round by
round; only the ratio is worth keeping.
Run: `python benchmarks/metadata.py [--json] [--devices N]`. Exit 1 when a target is missed, 2 when nothing could be measured.
"""

import argparse
import gzip
import json
import os
import pickle
import platform
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from metadata_table import show
from tapped_fleet import Flown, Heard, fly
from tuf_peer import Peer

import edgeops
from edgeops.parcel.manifest import Manifest
from edgeops.wire import canonical, envelope
from edgeops.wire.errors import EdgeopsError, Misuse
from edgeops.wire.keys import Signer
from edgeops.wire.messages import Bundle
from edgeops_agent.core.receive import Situation, receive
from edgeops_agent.shell import facts

MUST, REACH, OTHERS = 2_000, 1_500, 0
FIRST, SECOND = "order + release, 2 variants", "order + release, 3 variants"
ROUNDS, WARM_UP, CALLS = 40, 3, 10


class Refused(Exception):
    """A check that says no, and why."""


# -- the two checks, used on what was measured and on the controls


def check_order(message: bytes) -> int:
    """Bytes of the message that brings an order and its release; raises Refused above the target."""
    if len(message) > MUST:
        raise Refused(f"order + release are {len(message):,} B, at most {MUST:,} are allowed")
    return len(message)


def check_others(flown: Sequence[Heard], devices: Sequence[str], begin: int, end: int, chosen: str) -> int:
    """Bytes that all devices but `chosen` received between two moments; raises Refused when that is not nothing, or not known."""
    heard = {item.device for item in flown[:begin]}
    deaf = [name for name in devices if name not in heard]
    if deaf:
        raise Refused(f"{len(deaf)} of {len(devices)} devices were never heard before, so their silence says nothing")
    if not any(item.device == chosen for item in flown[begin:end]):
        raise Refused(f"{chosen} was not heard either, so nothing is known to have happened")
    paid = Counter(item.device for item in flown[begin:end] if item.device != chosen)
    total = sum(len(item.payload) for item in flown[begin:end] if item.device != chosen)
    if total > OTHERS:
        raise Refused(f"{len(paid)} other devices received {total:,} B, such as {min(paid)}")
    return total


def attempt(check: Any, *arguments: Any) -> dict[str, Any]:
    """What a check says: its figure, or why it refuses."""
    try:
        return {"ok": True, "bytes": check(*arguments)}
    except Refused as refusal:
        return {"ok": False, "why": str(refusal)}


# -- ours


def order_of(messages: Sequence[Heard]) -> Heard:
    """The message that brought a new order."""
    return next(item for item in messages if any(kind == "desired" for kind, _ in item.documents()))


def pair(message: Heard) -> bytes:
    """The same message with order and release only."""
    return Bundle(tuple(item for item in message.documents() if item[0] in ("release", "desired"))).encode()


def by_kind(messages: Sequence[Heard]) -> dict[str, int]:
    """Bytes by kind as they travel (in a bundle: with its comma), frames apart."""
    found: Counter[str] = Counter()
    for item in messages:
        found["MQTT headers"] += item.on_the_wire - len(item.payload)
        if item.is_frame:
            found["frames of the model"] += len(item.payload)
        elif item.documents() == (("command", item.payload),):
            found["command"] += len(item.payload)
        else:
            shares = {kind: share(kind, data) for kind, data in item.documents()}
            found.update(shares)
            found["brackets"] += len(item.payload) - sum(shares.values())
    return dict(found)


def share(kind: str, data: bytes) -> int:
    """Bytes of one document in a bundle: what it is alone, without the brackets around, with a comma."""
    return len(Bundle(((kind, data),)).encode()) - 1


def typical(flown: Flown, begin: str, end: str, devices: Sequence[str]) -> dict[str, Any]:
    """The median device of a phase: bytes by kind of the device in the middle, and least and most over all."""
    rows = [(sum(len(i.payload) for i in got if not i.is_frame), by_kind(got)) for d in devices if (got := flown.of(d, begin, end))]
    if not rows:
        return {"devices": len(devices), "heard": 0, "metadata": 0, "least": 0, "most": 0, "kinds": {}}
    totals = sorted(total for total, _ in rows)
    middle = min(rows, key=lambda row: abs(row[0] - statistics.median_low(totals)))
    return {
        "devices": len(devices), "heard": len(rows), "metadata": middle[0], "least": totals[0], "most": totals[-1],
        "kinds": middle[1],
    }  # fmt: skip


def take_apart(message: Heard) -> dict[str, Any]:
    """Each document of an order's message: its signed bytes, its envelope, its share as it travels."""
    rows = {}
    for kind, data in message.documents():
        body, _ = envelope.split(data, kind)
        rows[kind] = {"signed": len(body), "envelope": len(data), "sent": share(kind, data)}
    both = pair(message)
    return {
        "documents": rows, "order_and_release": len(both), "order_and_release_gzip": len(gzip.compress(both)),
        "message": len(message.payload), "message_gzip": len(gzip.compress(message.payload)), "packet": message.on_the_wire,
        "stream": stream_of(message), "variants": len(payload_of(message, "release")["variants"]),
        "per_variant": len(pair_with_one_more(message)) - len(both),
    }  # fmt: skip


def pair_with_one_more(message: Heard) -> bytes:
    """Order and release, had the release one more variant like its last (signed by a throwaway key, as long as a real one)."""
    release = payload_of(message, "release")
    release["variants"]["another"] = release["variants"][max(release["variants"])]
    return _resealed(message, release)


def payload_of(message: Heard, kind: str) -> dict[str, Any]:
    """The payload of a document in a message."""
    payload: dict[str, Any] = canonical.decode(envelope.split(dict(message.documents())[kind], kind)[0])
    return payload


def stream_of(message: Heard) -> dict[str, float]:
    """The stream list: how many frames and objects, and what one more of each adds to what is sent."""
    listed = payload_of(message, "stream")
    frames, objects = listed["frames"], listed["objects"]
    per_object = len(canonical.encode(objects)) / len(objects)
    return {"frames": len(frames), "objects": len(objects), "per_frame": 67, "per_object": per_object}


def with_golden_inside(message: Heard, objects: Mapping[str, bytes]) -> bytes:
    """A control: the order of a careless design, whose release carries its golden vectors instead of their digest."""
    release = payload_of(message, "release")
    for variant in release["variants"].values():
        manifest = Manifest.decode(objects[variant["manifest"]["sha256"]])
        variant["golden"] = objects[manifest.golden.sha256].hex()
    return _resealed(message, release)


def _resealed(message: Heard, release: Mapping[str, Any]) -> bytes:
    sealed = envelope.seal("release", release, [Signer.from_seed(bytes(32))])
    return Bundle((("release", sealed), ("desired", dict(message.documents())["desired"]))).encode()


def ours(flown: Flown) -> dict[str, Any]:
    """Everything about our side, with its checks and their controls."""
    chosen, second, *rest = flown.devices
    first, update = order_of(flown.of(chosen, "online", "all 1")), order_of(flown.of(chosen, "all 1", "one 2"))
    variants = tuple(len(payload_of(message, "release")["variants"]) for message in (first, update))
    if variants != (2, 3):
        raise Misuse("other-variants", f"the forge passed {variants} variants where 2 and 3 are to be measured")
    alone = Bundle(tuple(item for item in update.documents() if item[0] == "desired")).encode()
    marks, heard = flown.marks, flown.heard
    begin, end, later = marks["all 1"], marks["one 2"], marks["two 2"]
    muted = [replace(item, device=chosen) if item.device == rest[0] else item for item in heard]
    return {
        "phases": {
            "comes online, nothing to do": typical(flown, "begin", "online", flown.devices),
            "first order": typical(flown, "online", "all 1", flown.devices),
            f"own update ({chosen} to digits:2)": typical(flown, "all 1", "one 2", [chosen]),
            "all others in that time": typical(flown, "all 1", "one 2", [second, *rest]),
            "comes back, nothing new": typical(flown, "two 2", "back", rest),
        },
        "first": len(pair(first)), "update": take_apart(update),
        "broker": flown.broker, "devices": len(flown.devices), "messages": len(heard),
        "checks": {
            FIRST: attempt(check_order, pair(first)), SECOND: attempt(check_order, pair(update)),
            "all other devices": attempt(check_others, heard, flown.devices, begin, end, chosen),
        },
        "controls": {
            "deaf tap": attempt(check_others, [], flown.devices, 0, 0, chosen),
            f"tap deaf on {rest[0]} only": attempt(check_others, muted, flown.devices, begin, end, chosen),
            f"a window in which {second} was updated too": attempt(check_others, heard, flown.devices, begin, later, chosen),
            "golden vectors inside the release": attempt(check_order, with_golden_inside(update, flown.objects)),
        },
        "order alone passes": attempt(check_order, alone),
        "others": sum(len(item.payload) for item in heard[begin:end] if item.device != chosen),
    }  # fmt: skip


# -- both


def race(flown: Flown, peer: Peer) -> dict[str, Any]:
    """CPU of reading an update's whole message (three signatures and the decision) and of a TUF client's update, in turn."""
    update = order_of(flown.of(flown.devices[0], "all 1", "one 2"))
    record, situation = pickle.loads(update.record), Situation(int(time.time()), 0, "", facts.capabilities(), {})
    read = receive(record, Bundle.decode(update.payload), situation)
    if read.refused or not read.commands:
        raise Misuse("no-update", f"the recorded order does nothing here, so its CPU time says nothing: {read.refused}")
    forged = receive(record, Bundle.decode(_resealed(update, payload_of(update, "release"))), situation)
    prepared = peer.ask("cpu prepare")
    spent: list[list[int]] = [[] for _ in range(1 + len(prepared["configurations"]))]
    for turn in range(WARM_UP + ROUNDS):
        began = time.thread_time_ns()
        for _ in range(CALLS):
            receive(record, Bundle.decode(update.payload), situation)
        times = [(time.thread_time_ns() - began) / CALLS, *(peer.ask(f"cpu {i}") for i in range(len(spent) - 1))]
        for kept, value in zip(spent, times, strict=True):
            if turn >= WARM_UP:
                kept.append(value)
    rows = []
    for (devices, bins), values in zip(prepared["configurations"], spent[1:], strict=True):
        ratios = sorted(theirs / mine for theirs, mine in zip(values, spent[0], strict=True))
        low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
        rows.append({"devices": devices, "bins": bins, "ratio": statistics.median(ratios), "p10": low, "p90": high})
    return {
        "rounds": ROUNDS, "warm_up": WARM_UP, "calls": CALLS, "tuf_over_ours": rows,
        "ours_refused": bool(forged.refused) and not forged.commands, "tuf_refused": prepared["control"],
    }  # fmt: skip


# -- the report


def about() -> dict[str, Any]:
    """Versions and machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor()
    return {
        "edgeops": edgeops.__version__, "python": platform.python_version(), "cryptography": version("cryptography"),
        "paho-mqtt": version("paho-mqtt"), "machine": platform.machine(), "cpu": cpu, "cpus": os.cpu_count(),
        "load": [round(value, 2) for value in os.getloadavg()],
    }  # fmt: skip


def measure(devices: int) -> dict[str, Any]:
    """Both sides, one after the other for bytes, in turn for CPU."""
    before, began = about(), time.monotonic()
    peer = Peer()
    try:
        flown = fly(devices, lambda text: print(text, file=sys.stderr))
        mine = ours(flown)
        theirs = {"about": peer.ask("about"), "rows": peer.ask("bytes")}
        cpu = race(flown, peer)
    finally:
        peer.close()
    sound = cpu["ours_refused"] and cpu["tuf_refused"] and mine["order alone passes"]["ok"]
    sound = sound and not any(control["ok"] for control in mine["controls"].values())
    size, first = mine["update"]["order_and_release"], mine["first"]
    for row in theirs["rows"]:
        row["own_over_ours"] = row["own"] / size
    return {
        "targets": {
            FIRST: {"must": MUST, "reach": REACH, "found": first}, SECOND: {"must": MUST, "reach": REACH, "found": size},
            "all other devices": {"must": OTHERS, "reach": OTHERS, "found": mine["others"]},
        },
        "ours": mine, "tuf": theirs, "cpu": cpu, "sound": sound, "met": all(check["ok"] for check in mine["checks"].values()),
        "about": before | {"load_after": about()["load"], "seconds": round(time.monotonic() - began)},
    }  # fmt: skip


def main() -> int:
    """Entry point; the exit code says whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--devices", type=int, default=24, help="real devices on our side, at least 3 (default %(default)s)")
    options = parser.parse_args()
    if options.devices < 3:
        parser.error("it takes at least 3 devices: one that is updated, one for the control, one that is left alone")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        report = measure(options.devices)
    except (EdgeopsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(report, indent=2)) if options.json else show(report)
    if not report["sound"]:
        print("error: a control was not refused, so nothing above is proven", file=sys.stderr)
        return 2
    return 0 if report["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
