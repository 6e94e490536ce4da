"""A real agent in the state a vector asks for: the supervisor on a real folder, its link and its clock in our hands.

What it says is what its own counters and slots say afterwards, and what lies on its disk.
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edgeops.wire.errors import EdgeopsError
from edgeops.wire.fields import Fields
from edgeops.wire.messages import Bundle
from edgeops.wire.topics import down
from edgeops.wire.trust import Capabilities, Trust
from edgeops_agent.core.record import Record
from edgeops_agent.shell import supervisor as shell
from edgeops_agent.shell.disk import StateFolder
from edgeops_agent.shell.identity import Paths
from edgeops_agent.shell.inbox import Message
from edgeops_agent.shell.ports import Ports
from edgeops_agent.shell.upkeep import Found

from .judge import Verdict, changed


class Link:
    """The link's place: connected, and nobody at the other end."""

    connected = True
    way = None

    def publish(self, topic: str, payload: bytes, qos: int = 1) -> bool:
        """Gone."""
        return True

    def __getattr__(self, name: str) -> Any:
        return lambda *_args, **_more: None


@contextlib.contextmanager
def device(folder: Path, state: Mapping[str, Any]) -> Iterator[shell.Supervisor]:
    """A supervisor whose folder holds this state; nothing runs in its slots."""
    kept = StateFolder(folder)
    kept.create()
    kept.claim()
    kept.prepare()
    kept.save(Record(Trust.parse(Fields.of(state["trust"], "state")), unsure=state["unsure"]))
    kept.release()
    for digest, text in state["documents"].items():
        (kept.documents / digest).write_text(text)
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    Paths(folder).identity.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    can = state["capabilities"]
    is_a = Capabilities(can["device_class"], tuple(can["runtime"]), can["max_ir"], can["max_opset"])
    ports = Ports(wall=lambda: state["now"], monotonic=lambda: 0.0, capabilities=lambda: is_a, link=lambda *_: Link())
    agent = shell.Supervisor(shell.Options(folder), ports)
    agent.clock.ask(state["nonce"])
    agent.documents.known = {digest: text.encode() for digest, text in state["documents"].items()}
    threads = threading.active_count()
    try:
        yield agent
        assert threading.active_count() <= threads + 1, "something was started"
    finally:
        agent.stop()
        agent.run()


def offer(agent: shell.Supervisor, case: Mapping[str, Any]) -> Verdict:
    """Bring the documents of a case as the link would; what the device makes of them."""
    before = agent.record
    documents = tuple((name, text.encode()) for name, text in case["documents"])
    if case["kind"] == "command":
        item: Any = Message(down(before.trust.device, "cmd"), documents[0][1])
    else:
        item = bundle(before.trust.device, documents) or Found(documents)
    agent.inbox.put(item)
    agent.composure.handle(agent.inbox.take(0))
    return verdict(case["kind"], before, agent.record)


def bundle(device: str, documents: tuple[tuple[str, bytes], ...]) -> Message | None:
    """The message that brings these bytes; None where a bundle cannot say them, and only a false HTTPS answer could."""
    try:
        data = Bundle(documents).encode()
        return Message(down(device, "desired"), data) if Bundle.decode(data).documents == documents else None
    except EdgeopsError:
        return None


def verdict(kind: str, before: Record, after: Record) -> Verdict:
    """What the counters, slots and trust say has happened."""
    new = {name: after.counters[name] - before.counters.get(name, 0) for name in after.counters}
    named = {name.removeprefix("refused_").replace("message.", f"{kind}."): n for name, n in new.items() if "." in name}
    refused = [name for name, n in named.items() for _ in range(n)]
    refused += ["desired.duplicate"] * new.get("duplicate_desired", 0)
    if kind == "command" and replace(after, counters={}) == replace(before, counters={}) and not refused:
        refused = ["command.duplicate"]
    slots = {
        name: (slot.last.verdict, slot.last.reason) if slot.last else (slot.phase, "") for name, slot in after.slots.items()
    }  # fmt: skip
    return Verdict(tuple(refused), slots, changed(before.trust, after.trust))
