"""The report of metadata.py, for people."""

from collections.abc import Mapping
from typing import Any

KINDS = (
    "root", "site", "floor", "time", "release", "desired", "stream", "command", "brackets", "frames of the model", "MQTT headers",
)  # fmt: skip


def show(report: Mapping[str, Any]) -> None:
    """Print all of it."""
    mine = report["ours"]
    print(f"Ours: {mine['devices']} real enrolled devices, {mine['messages']} messages heard, broker {mine['broker']}\n")
    _show_phases(mine["phases"])
    _show_update(mine["update"])
    _show_peer(report)
    _show_cpu(report["cpu"])
    _show_checks(report)
    about = {**report["about"], **report["tuf"]["about"]}
    print("about: " + ", ".join(f"{key} {value}" for key, value in about.items()))


def _show_phases(phases: Mapping[str, Any]) -> None:
    """Bytes by kind for the median device of each phase."""
    print(f"{'bytes of metadata one device receives':<44}{'median':>10}{'least':>10}{'most':>10}   heard anything")
    for name, phase in phases.items():
        sizes = "".join(f"{phase[key]:>10,}" for key in ("metadata", "least", "most"))
        print(f"  {name:<42}{sizes}   {phase['heard']} of {phase['devices']} devices")
        kinds = [kind for kind in (*KINDS, *sorted(phase["kinds"].keys() - set(KINDS))) if phase["kinds"].get(kind)]
        if kinds:
            print("      " + ", ".join(f"{kind} {phase['kinds'][kind]:,}" for kind in kinds))
    print("  who comes back gets the retained order and the answer to its birth, all documents anew; see `no change` of TUF below")


def _show_update(update: Mapping[str, Any]) -> None:
    """What one update is made of."""
    print(f"\none update of one device, digits:1 to 2, document by document (a release of {update['variants']} variants)")
    print(f"  {'':<18}{'signed bytes':>14}{'envelope':>12}{'as it travels':>15}")
    for kind in ("release", "desired", "stream"):
        row = update["documents"][kind]
        print(f"  {kind:<18}{row['signed']:>14,}{row['envelope']:>12,}{row['sent']:>15,}")
    size, packed, stream = update["order_and_release"], update["order_and_release_gzip"], update["stream"]
    print(f"  ORDER + RELEASE: {size:,} B = the message if it held only these two (gzip {packed:,} B)")
    print(f"  one more variant in the release adds {update['per_variant']:,} B")
    print("  not counted: topic and MQTT header, the acknowledging command, and the stream list:")
    more = f"{stream['per_frame']:.0f} B more for each frame of 60 KiB, {stream['per_object']:.0f} B for each object"
    print(f"    frames {stream['frames']}, objects {stream['objects']}; {more}")
    whole, compressed, packet = update["message"], update["message_gzip"], update["packet"]
    print(f"  the whole message: {whole:,} B (gzip {compressed:,} B), as an MQTT packet {packet:,} B")


def _show_peer(report: Mapping[str, Any]) -> None:
    """Bytes of TUF beside ours."""
    ours = report["ours"]["checks"]["all other devices"].get("bytes", "?")
    print("\nTUF, bytes fetched by a real tuf.ngclient.Updater that has the root; its targets say path, length and hash only")
    heads = ("devices", "bins", "first sync", "no change", "own update", "gzip", "÷ ours", "1 % of others", "ours")
    widths = (9, 7, 12, 11, 12, 9, 9, 15, 6)
    print("".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True)))
    for row in report["tuf"]["rows"]:
        cells = [f"{row[key]:,}" for key in ("devices", "bins", "first", "nothing_new", "own", "own_gzip")]
        cells += [f"{row['own_over_ours']:.1f}x", f"{row['others']:,.0f}", f"{ours}"]
        print("".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)))
    clients = max(row["clients"] for row in report["tuf"]["rows"])
    print(f"  1 % of others: mean over {clients} clients where there are bins; without bins all pay the same, so 1 was asked")


def _show_cpu(cpu: Mapping[str, Any]) -> None:
    """The CPU ratio."""
    rounds = f"{cpu['rounds']} rounds in turn after {cpu['warm_up']} to warm up, ours {cpu['calls']} times a round"
    print(f"\nCPU of one update, TUF ÷ ours: {rounds}")
    for row in cpu["tuf_over_ours"]:
        spread = f"10th to 90th percentile {row['p10']:.1f} to {row['p90']:.1f}"
        print(f"  {row['devices']:>6,} devices, {row['bins']:>3} bins: median {row['ratio']:.1f}x   ({spread})")
    print("  ours: reading the whole message, stream list too: 3 signatures and the decision, nothing stored")
    print("  TUF: the whole Updater, the old files it reads and verifies again and the new ones it writes included")


def _show_checks(report: Mapping[str, Any]) -> None:
    """Controls and targets."""
    print("\ncontrols, which the same checks must refuse:")
    for name, said in report["ours"]["controls"].items():
        print(f"  {name}: " + ("NOT REFUSED" if said["ok"] else f"refused: {said['why']}"))
    forged = {"our reader, a release signed by another key": "ours_refused", "TUF, a digit changed in the targets": "tuf_refused"}
    for what, name in forged.items():
        print(f"  {what}: " + ("refused" if report["cpu"][name] else "NOT REFUSED"))
    alone = report["ours"]["order alone passes"]
    print(f"  and one they must pass, the order alone: {alone['bytes']:,} B" if alone["ok"] else "  the order alone was REFUSED")
    print("targets:")
    for name, target in report["targets"].items():
        met = "MISSED" if target["found"] is None or target["found"] > target["must"] else "met"
        reached = "reached" if met == "met" and target["found"] <= target["reach"] else "not reached"
        found = "unknown" if target["found"] is None else f"{target['found']:,} B"
        print(f"  {name}: {found}; must ≤ {target['must']:,} B: {met}; reach ≤ {target['reach']:,} B: {reached}")
        if why := report["ours"]["checks"][name].get("why"):
            print(f"    {why}")
