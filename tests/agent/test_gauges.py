"""Ready-made facts from folders laid out like /sys and /proc, from what NetworkManager says, and from this machine."""

import os
import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeops.wire import canonical
from edgeops.wire.conditions import Fact
from edgeops_agent.shell import facts
from edgeops_agent.shell.gauges import disk, gauges, load, memory, network, power, temperature, way_out

MAINS = {"type": "Mains", "online": "1"}
BATTERY = {"type": "Battery", "status": "Discharging", "capacity": "80", "present": "1"}
HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
ROUTE = "{0}\t00000000\t0101A8C0\t{2}\t0\t0\t{1}\t00000000\t0\t0\t0\n"
SIX = f"{'0' * 32} 00 {'0' * 32} 00 fe80{'0' * 27}1 00000400 00000001 00000000 00450003     wwan0\n"
LOST = f"{'0' * 32} 00 {'0' * 32} 00 {'0' * 32} ffffffff 00000001 00000000 00200200       lo\n"


def lay(root: Path, files: dict[str, str]) -> Path:
    """A tree of small files."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def supplies(root: Path, *all_of_them: dict[str, str]) -> Path:
    """A /sys with these power supplies."""
    (root / "class" / "power_supply").mkdir(parents=True)
    for number, one in enumerate(all_of_them):
        lay(root, {f"class/power_supply/s{number}/{name}": f"{text}\n" for name, text in one.items()})
    return root


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ((), {"power": "unknown"}),
        ((MAINS,), {"power": "external"}),
        ((MAINS | {"online": "0"},), {"power": "unknown"}),
        ((MAINS | {"online": "0"}, BATTERY), {"power": "battery", "battery": 80}),
        ((MAINS, BATTERY), {"power": "battery", "battery": 80}),
        ((MAINS, BATTERY | {"status": "Not charging"}), {"power": "external", "battery": 80}),
        ((BATTERY | {"status": "Not charging"},), {"power": "unknown", "battery": 80}),
        ((BATTERY | {"status": "Charging", "capacity": "7"}, BATTERY | {"status": "Full"}), {"power": "external", "battery": 7}),
        (({"type": "USB", "online": "2"}, BATTERY | {"status": "Unknown"}), {"power": "external", "battery": 80}),
        ((MAINS, BATTERY | {"scope": "Device", "capacity": "3"}), {"power": "external"}),
        ((MAINS, BATTERY | {"present": "0"}), {"power": "external"}),
        ((BATTERY | {"capacity": "104"},), {"power": "battery", "battery": 100}),
    ],
)
def test_power(tmp_path: Path, there: tuple[dict[str, str], ...], found: dict[str, Fact]) -> None:
    """A battery in use outweighs a charger that is too weak; a mouse's battery is not ours; who does not say is unknown."""
    assert power(supplies(tmp_path, *there)) == found


@pytest.mark.parametrize(
    ("readings", "found"),
    [
        ([], {}),
        (["41000"], {"temperature_c": 41}),
        (["41000", "69001", "-12000"], {"temperature_c": 70}),
        (["-274000", "32767000", "nonsense"], None),
        (["-274000", "32767000"], {}),
        (["-500"], {"temperature_c": 0}),
    ],
)
def test_temperature(tmp_path: Path, readings: list[str], found: dict[str, Fact] | None) -> None:
    """The hottest zone, rounded up; sensors that are off or broken are no readings; coolers are no zones."""
    lay(tmp_path, {f"class/thermal/thermal_zone{i}/temp": text for i, text in enumerate(readings)})
    lay(tmp_path, {"class/thermal/cooling_device0/temp": "99000"})
    if found is None:
        assert "temperature_c" not in gauges(tmp_path, tmp_path, tmp_path, lambda words: "")
    else:
        assert temperature(tmp_path) == found


@pytest.mark.parametrize(
    ("four", "six", "found"),
    [
        ("", "", ""),
        (ROUTE.format("eth0", 100, "0003"), "", "eth0"),
        (ROUTE.format("wlan0", 600, "0003") + ROUTE.format("eth0", 100, "0003"), SIX, "eth0"),
        (ROUTE.format("eth0", 100, "0002"), SIX + LOST, "wwan0"),
        ("", LOST, ""),
        ("eth0\t0000A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n", "", ""),
    ],
)
def test_way_out(tmp_path: Path, four: str, six: str, found: str) -> None:
    """The default route with the lowest metric that is up; IPv6 where there is no other; unreachable routes lead nowhere."""
    assert way_out(lay(tmp_path, {"net/route": HEAD + four, "net/ipv6_route": six})) == found


def manager(kind: str, metered: str) -> Callable[[list[str]], str]:
    """NetworkManager, as nmcli 1.42 shows it."""
    told = f"GENERAL.TYPE:{kind}\nGENERAL.METERED:{metered}\n"
    return lambda words: told if words[-1] == "eth0" else "running\n" if words[-1] == "general" else ""


@pytest.mark.parametrize(
    ("kind", "metered", "found"),
    [
        ("ethernet", "no (guessed)", {"network": "ethernet", "metered": False}),
        ("wifi", "yes (guessed)", {"network": "wifi", "metered": True}),
        ("gsm", "yes", {"network": "mobile", "metered": True}),
        ("wifi", "no", {"network": "wifi", "metered": False}),
        ("tun", "unknown", {"network": "tun"}),
    ],
)
def test_network(tmp_path: Path, kind: str, metered: str, found: dict[str, Fact]) -> None:
    """What NetworkManager says of the way out; what it does not know is no fact; without it there are none."""
    proc = lay(tmp_path, {"net/route": HEAD + ROUTE.format("eth0", 100, "0003")})
    assert network(proc, manager(kind, metered)) == found
    assert network(proc, lambda words: "") == {}


def test_no_network(tmp_path: Path) -> None:
    """No way out is a fact where somebody knows, and none where nobody does."""
    assert network(tmp_path, manager("", "")) == {"network": "none"}
    assert network(tmp_path, lambda words: "") == {}


def test_memory_and_load(tmp_path: Path) -> None:
    """MiB and percent of the CPUs; a kernel that says less gives fewer facts."""
    numbers = "MemTotal: 9 kB\nMemAvailable:  524288 kB\nHugePages_Total: 0\n"
    proc = lay(tmp_path, {"meminfo": numbers, "loadavg": "1.50 0.2 0.1 1/2 3\n"})
    assert memory(proc) == {"memory_free_mb": 512}
    assert load(proc) == {"load_pct": round(150 / (os.cpu_count() or 1))}
    assert memory(lay(tmp_path, {"meminfo": "MemFree: 1 kB\n"})) == {}


def test_what_breaks_hides_nothing_else(tmp_path: Path) -> None:
    """Nonsense in one place leaves the facts of all others."""
    lay(tmp_path, {"class/power_supply/s0/type": "Battery", "class/power_supply/s0/capacity": "much", "loadavg": "",
                   "meminfo": "?", "net/route": f"{HEAD}eth0\n", "class/thermal/thermal_zone0/temp": "50000"})  # fmt: skip
    assert set(gauges(tmp_path, tmp_path, tmp_path, lambda words: "")) == {"temperature_c", "disk_free_mb"}


def test_this_machine(tmp_path: Path) -> None:
    """What is found here are ready-made facts of sound values."""
    found = gauges(tmp_path, Path("/sys"), Path("/proc"), lambda words: "")
    assert set(found) <= set(facts.READY_MADE)
    assert found["disk_free_mb"] == pytest.approx(disk(tmp_path)["disk_free_mb"], abs=4096)
    if platform.system() == "Linux":
        assert {"power", "memory_free_mb", "load_pct"} <= set(found)
        assert found["power"] in ("external", "battery", "unknown")
        assert 0 < int(found["memory_free_mb"]) < 1 << 24


def test_a_birth_tells_the_ready_made_facts_only(tmp_path: Path) -> None:
    """The manager hears of the battery, not of what the owner states of other things; the message can be signed."""
    told = facts.facts(tmp_path, {"battery": 80, "metered": False, "power": "battery", "parked": True, "minute_of_week": 3})
    assert {"battery", "metered", "power", "cpus", "disk_free"} <= set(told)
    assert not {"parked", "minute_of_week"} & set(told)
    assert canonical.decode(canonical.encode(told), "facts", 4096) == told
