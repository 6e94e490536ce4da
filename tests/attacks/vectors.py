"""The document attacks and honest flows as one JSON file for any implementation: `python -m tests.attacks.vectors` writes it."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..wire import world as w
from .documents import ROWS, Offer, Row
from .honest import FLOWS
from .judge import REAL, Verdict, judge

FILE = Path(__file__).parents[2] / "edgeops" / "wire" / "vectors" / "documents.json"
ABOUT = (
    "Documents offered to a device, its state before, and what it must make of them. See docs/vectors.md. "
    "Keys are made from SHA-256 of their names; they protect nothing."
)


def state(offer: Offer) -> dict[str, Any]:
    """The device before: what it trusts, believes, is, and has on disk."""
    if offer.kind == "pin":
        return {"fleet": offer.fleet, "pin": offer.pin, "device": w.DEVICE, "incarnation": 1}
    return {
        "trust": offer.trust.payload(), "now": offer.now, "nonce": offer.nonce,
        "capabilities": asdict(offer.device) | {"runtime": list(offer.device.runtime)},
        "documents": {name: data.decode() for name, data in offer.kept.items()}, "unsure": offer.unsure,
    }  # fmt: skip


def expected(row: Row) -> dict[str, Any]:
    """What an attack must come to: nothing changes but what honest documents before it change."""
    name = row.offer.documents[-1][0]
    if (row.by == "Unfit" and name == "desired" and row.reason != "must") or row.id == "release-must":
        return {"refused": [], "slots": {"main": ["unfit", row.reason]}}
    return {"refused": [f"{name}.{row.reason}"], "slots": {}}


def entry(name: str, story: str, offer: Offer, expect: Mapping[str, Any]) -> dict[str, Any]:
    """One case of the file."""
    documents = [[kind, short(data.decode())] for kind, data in offer.documents]
    return {"id": name, "story": story, "kind": offer.kind, "state": state(offer), "documents": documents, "expect": dict(expect)}


def short(text: str) -> Any:
    """A text, or how often one character is repeated, so that the file stays readable."""
    return {"repeat": text[0], "times": len(text)} if len(text) > 100_000 and len(set(text)) == 1 else text


def build() -> dict[str, Any]:
    """The whole file. Changes of trust in `expect` are what the real code made of them: the tests hold them against the rules."""
    cases = []
    for row in ROWS:
        case = entry(row.id, row.attack, row.offer, expected(row))
        cases.append(case | {"attack": True})
    for flow in FLOWS:
        expect = {"refused": list(flow.ignored), "slots": flow.slots, "trust": dict(flow.after)}
        cases.append(entry(flow.id, flow.story, flow.offer, expect) | {"attack": False})
    for case in cases:
        if case["attack"] and case["kind"] != "pin":
            plain = case | {"documents": [[kind, full(text)] for kind, text in case["documents"]]}
            case["expect"]["trust"] = judge(REAL, plain).trust
    states: list[Any] = []
    for case in cases:
        if case["state"] not in states:
            states.append(case["state"])
        case["state"] = states.index(case["state"])
    return {"format": 1, "about": ABOUT, "states": states, "cases": cases}


def load() -> list[dict[str, Any]]:
    """The cases of the file as it lies there, each with its state and documents spelled out."""
    return spelled_out(json.loads(FILE.read_text()))


def spelled_out(file: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Cases as the judge takes them."""
    return [
        case | {"state": file["states"][case["state"]], "documents": [[kind, full(text)] for kind, text in case["documents"]]}
        for case in file["cases"]
    ]


def full(text: Any) -> str:
    """The reverse of `short`."""
    return text if isinstance(text, str) else text["repeat"] * text["times"]


def agrees(verdict: Verdict, case: Mapping[str, Any]) -> bool:
    """Whether a verdict is the expected one."""
    expect = case["expect"]
    wanted = Verdict(tuple(expect["refused"]), {k: tuple(v) for k, v in expect["slots"].items()}, expect.get("trust", {}))
    return verdict == wanted


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(build(), indent=1, ensure_ascii=True) + "\n")
