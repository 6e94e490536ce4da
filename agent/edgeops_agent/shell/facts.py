"""What this device is and how it feels: CPU class, runtime version (without loading the runtime), memory, disk."""

import contextlib
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from edgeops import __version__
from edgeops.wire import canonical
from edgeops.wire.canonical import LIMIT
from edgeops.wire.conditions import Fact
from edgeops.wire.device_class import classify
from edgeops.wire.errors import Misuse
from edgeops.wire.trust import KNOWN_MUST, Capabilities

READY_MADE = ("power", "battery", "temperature_c", "network", "metered", "disk_free_mb", "memory_free_mb", "load_pct")
CPUINFO = Path("/proc/cpuinfo")


def cpu_flags() -> tuple[str, ...]:
    """CPU flags as the kernel reports them; empty where it does not."""
    try:
        for line in CPUINFO.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in {"flags", "Features"}:
                return tuple(value.split())
    except OSError:
        pass
    return ()


def capabilities() -> Capabilities:
    """This device in the words of the trust rules."""
    version = metadata.version("onnxruntime").split(".")
    return Capabilities(classify(platform.machine(), cpu_flags()), (int(version[0]), int(version[1])))


def birth(device: Capabilities) -> dict[str, Any]:
    """The capabilities of a birth message."""
    return {
        "class": device.device_class, "runtime": f"{device.runtime[0]}.{device.runtime[1]}", "agent": __version__, "wire": [1],
        "max_ir": device.max_ir, "max_opset": device.max_opset, "machine": platform.machine(), "codecs": ["raw"],
        "understands": sorted(KNOWN_MUST),
    }  # fmt: skip


def facts(root: Path, sensed: Mapping[str, Fact] | None = None) -> dict[str, Fact]:
    """Free disk (bytes) where the agent lives, CPUs, memory (bytes) where known; of what is `sensed` the ready-made facts.

    What the device's owner states of other things stays on the device.
    """
    found: dict[str, Fact] = {name: value for name, value in (sensed or {}).items() if name in READY_MADE}
    found["cpus"] = os.cpu_count() or 1
    with contextlib.suppress(OSError):  # a disk that fails is not the moment to fall silent
        status = os.statvfs(root)
        found["disk_free"] = min(status.f_bavail * status.f_frsize, LIMIT)
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory"] = min(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), LIMIT)
    return {name: value for name, value in found.items() if _can_be_said(value)}


def _can_be_said(value: Fact) -> bool:
    """Whether a birth can hold it: better one without a fact than none at all."""
    try:
        canonical.encode(value)
    except Misuse:
        return False
    return True
