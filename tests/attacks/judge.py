"""What the code of the trust core (the real one, or a copy with a check taken out) makes of one case of the vectors."""

import importlib
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import edgeops
import edgeops_agent

ROOMS = {"wire": Path(edgeops.__path__[0]) / "wire", "parcel": Path(edgeops.__path__[0]) / "parcel",
         "core": Path(edgeops_agent.__path__[0]) / "core"}  # fmt: skip
NAMES = {"trust": "wire.trust", "messages": "wire.messages", "fields": "wire.fields", "errors": "wire.errors",
         "receive": "core.receive", "record": "core.record"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was refused (`kind.reason`, in order), how slots ended (verdict, reason), which parts of the trust changed."""

    refused: tuple[str, ...] = ()
    slots: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    trust: Mapping[str, Any] = field(default_factory=dict)


Code = Mapping[str, ModuleType]
REAL: Code = {
    name: importlib.import_module(f"edgeops.{path}" if path.startswith("wire") else f"edgeops_agent.{path}")
    for name, path in NAMES.items()
}


def judge(code: Code, case: Mapping[str, Any]) -> Verdict:
    """Play a case; anything but the errors of the house escapes."""
    state = case["state"]
    documents = tuple((name, text.encode()) for name, text in case["documents"])
    if case["kind"] == "pin":
        return _pin(code, state, documents[0][1])
    trust = code["trust"].Trust.parse(code["fields"].Fields.of(state["trust"], "state"))
    before = code["record"].Record(trust, unsure=state["unsure"])
    if case["kind"] == "command":
        return _command(code, before, documents[0][1])
    can = state["capabilities"]
    device = code["trust"].Capabilities(can["device_class"], tuple(can["runtime"]), can["max_ir"], can["max_opset"])
    kept = {name: text.encode() for name, text in state["documents"].items()}
    situation = code["receive"].Situation(state["now"], 0, state["nonce"], device, kept, wall=state["now"])
    try:
        received = code["receive"].receive(before, code["messages"].Bundle(documents), situation)
    except code["errors"].EdgeopsError as error:
        return Verdict((f"bundle.{error.reason}",))
    refused = tuple(f"{line.partition(':')[0]}.{_reason(line)}" for line in received.refused)
    refused += ("desired.duplicate",) * received.record.counters.get("duplicate_desired", 0)
    ended = {name: (slot.last.verdict, slot.last.reason) for name, slot in received.record.slots.items() if slot.last}
    begun = {name: (slot.phase, "") for name, slot in received.record.slots.items() if not slot.last}
    return Verdict(refused, ended | begun, changed(trust, received.record.trust))


def _reason(line: str) -> str:
    return line.rpartition("[")[2].partition("]")[0]


def _command(code: Code, before: Any, data: bytes) -> Verdict:
    try:
        record, _ = code["receive"].obey(before, data)
    except code["errors"].EdgeopsError as error:
        return Verdict((f"command.{error.reason}",))
    return Verdict(trust=changed(before.trust, record.trust)) if record != before else Verdict(("command.duplicate",))


def _pin(code: Code, state: Mapping[str, Any], data: bytes) -> Verdict:
    try:
        code["trust"].pin_root(data, state["fleet"], state["pin"], state["device"], state["incarnation"])
    except code["errors"].EdgeopsError as error:
        return Verdict((f"root.{error.reason}",))
    return Verdict()


def changed(before: Any, after: Any) -> dict[str, Any]:
    """The members of a trust state that differ, as they are after."""
    old, new = before.payload(), after.payload()
    return {name: new[name] for name in new if new[name] != old[name]}


@contextmanager
def without(file: str, old: str, new: str, folder: Path, name: str) -> Iterator[Code]:
    """A copy of the trust core in which `old` reads `new` in `file` (room/module), importable while this lasts."""
    package = folder / name
    for room, path in ROOMS.items():
        shutil.copytree(path, package / room, ignore=shutil.ignore_patterns("__pycache__", "vectors"))
    (package / "__init__.py").touch()
    for path in package.rglob("*.py"):
        text = path.read_text()
        if path == package / f"{file}.py":
            assert text.count(old) >= 1, f"{file} no longer says {old!r}"
            text = text.replace(old, new)
        path.write_text(text.replace("from edgeops.", f"from {name}."))
    sys.path.insert(0, str(folder))
    try:
        importlib.invalidate_caches()
        yield {key: importlib.import_module(f"{name}.{path}") for key, path in NAMES.items()}
    finally:
        sys.path.remove(str(folder))
        for module in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
            del sys.modules[module]
