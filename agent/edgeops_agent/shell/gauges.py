"""Ready-made facts of a Linux machine, read from /sys, /proc and NetworkManager. What cannot be read is absent, never guessed.

Sources: the kernel's Documentation/ABI/testing/sysfs-class-power and driver-api/thermal/sysfs-api.rst, proc(5), nmcli(1).
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from edgeops.wire.conditions import Fact

Ask = Callable[[list[str]], str]
"""Runs a program; what it printed, empty when there is no such program or it failed."""

COLDEST_MC, HOTTEST_MC = -55_000, 150_000
"""Thermal zones of broken or switched-off sensors report absolute zero, or worse; no chip runs outside these."""
_UP, _REJECT = 0x1, 0x200
_NETWORKS: Mapping[str, str] = {"gsm": "mobile", "cdma": "mobile"}


def gauges(root: Path, sys: Path, proc: Path, ask: Ask) -> dict[str, Fact]:
    """All ready-made facts there are: `root` is a folder on the agent's disk, `sys` and `proc` are the kernel's."""
    readers: tuple[Callable[[], Mapping[str, Fact]], ...] = (
        lambda: power(sys), lambda: temperature(sys), lambda: network(proc, ask), lambda: disk(root), lambda: memory(proc),
        lambda: load(proc),
    )  # fmt: skip
    found: dict[str, Fact] = {}
    for reader in readers:
        with contextlib.suppress(OSError, ValueError, IndexError):
            found.update(reader())
    return found


def power(sys: Path) -> dict[str, Fact]:
    """`power`: external, battery or unknown; `battery`: percent, the lowest of several batteries.

    Batteries of mice and keyboards (scope Device) are left out. A battery that is being discharged outweighs a charger that says
    it is online: the charger is too weak.
    """
    supplies = [supply for supply in _folders(sys / "class" / "power_supply") if _text(supply / "scope") != "Device"]
    chargers = [supply for supply in supplies if _text(supply / "type") not in ("Battery", "UPS")]
    batteries = [supply for supply in supplies if supply not in chargers and _text(supply / "present") != "0"]
    states = {_text(battery / "status") for battery in batteries}
    found: dict[str, Fact] = {"power": "unknown"}
    if "Discharging" in states:
        found["power"] = "battery"
    elif states & {"Charging", "Full"} or any(_text(charger / "online") not in ("", "0") for charger in chargers):
        found["power"] = "external"
    levels = [int(level) for battery in batteries if (level := _text(battery / "capacity"))]
    if levels:
        found["battery"] = max(0, min(100, *levels))
    return found


def temperature(sys: Path) -> dict[str, Fact]:
    """`temperature_c`: the hottest thermal zone, in whole degrees Celsius, rounded up."""
    zones = _folders(sys / "class" / "thermal")
    readings = [int(text) for zone in zones if zone.name.startswith("thermal_zone") and (text := _text(zone / "temp"))]
    likely = [reading for reading in readings if COLDEST_MC < reading < HOTTEST_MC]
    return {"temperature_c": -(-max(likely) // 1000)} if likely else {}


def network(proc: Path, ask: Ask) -> dict[str, Fact]:
    """`network`: what the way out is made of (ethernet, wifi, mobile … or none); `metered`: whether it costs by volume.

    NetworkManager is asked about the device of the default route. Where it does not know whether a network is metered there is no
    such fact; where it does not run there is neither.
    """
    device = way_out(proc)
    if not device:
        return {"network": "none"} if ask(["-t", "-f", "RUNNING", "general"]).strip() == "running" else {}
    lines = ask(["-t", "-f", "GENERAL.TYPE,GENERAL.METERED", "device", "show", device]).splitlines()
    said = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    kind, metered = said.get("GENERAL.TYPE", ""), said.get("GENERAL.METERED", "").split(" ")[0]
    found: dict[str, Fact] = {"network": _NETWORKS.get(kind, kind)} if kind else {}
    return {**found, "metered": metered == "yes"} if metered in ("yes", "no") else found


def way_out(proc: Path) -> str:
    """The device of the default route with the lowest metric, IPv4 before IPv6; empty for none."""
    routes = [line.split() for line in _text(proc / "net" / "route").splitlines()[1:]]
    four = [(int(row[6]), row[0]) for row in routes if row[1] == row[7] == "00000000" and _leads_out(row[3])]
    rows = [line.split() for line in _text(proc / "net" / "ipv6_route").splitlines()]
    six = [(int(row[5], 16), row[9]) for row in rows if set(row[0] + row[1]) == {"0"} and _leads_out(row[8]) and row[9] != "lo"]
    return min(four or six, default=(0, ""))[1]


def _leads_out(flags: str) -> bool:
    return int(flags, 16) & (_UP | _REJECT) == _UP


def disk(root: Path) -> dict[str, Fact]:
    """`disk_free_mb`: MiB the agent may still write where it keeps its models."""
    status = os.statvfs(root)
    return {"disk_free_mb": status.f_bavail * status.f_frsize >> 20}


def memory(proc: Path) -> dict[str, Fact]:
    """`memory_free_mb`: MiB that programs can still get without swapping, as the kernel estimates it."""
    lines = dict(line.split(":", 1) for line in _text(proc / "meminfo").splitlines())
    return {"memory_free_mb": int(lines["MemAvailable"].split()[0]) >> 10} if "MemAvailable" in lines else {}


def load(proc: Path) -> dict[str, Fact]:
    """`load_pct`: the load average of the last minute per CPU; 100 is as many runnable programs as CPUs."""
    return {"load_pct": round(100 * float(_text(proc / "loadavg").split()[0]) / (os.cpu_count() or 1))}


def _folders(parent: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from sorted(parent.iterdir())


def _text(path: Path) -> str:
    """A short kernel file; empty when there is none, or the device behind it does not answer."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
