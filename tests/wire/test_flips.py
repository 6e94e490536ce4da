"""No byte of any envelope can change unnoticed: every byte, every bit, and some replacements that keep the text readable."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edgeops.wire import envelope, trust
from edgeops.wire.errors import Rejected, Unfit
from edgeops.wire.keys import Signer
from edgeops.wire.messages import open_report, open_tele, seal_tele

from . import world as w

OTHERS = {
    "stream": ({"fleet": w.FLEET, "frame": 1024, "objects": [], "frames": []}, (w.ONLINE,)),
    "state": ({"fleet": w.FLEET, "device": w.DEVICE, "seq": 1}, (w.STRANGER,)),
    "presence": ({"fleet": w.FLEET, "device": w.DEVICE, "kind": "birth"}, (w.STRANGER,)),
    "checkpoint": ({"fleet": w.FLEET, "entry": 1, "digest": "a" * 64}, (w.ONLINE,)),
    "enrol": ({"fleet": w.FLEET, "device": w.DEVICE, "secret": "s", "csr": "x"}, (w.STRANGER,)),
    "renew": ({"fleet": w.FLEET, "device": w.DEVICE, "csr": "x"}, (w.STRANGER,)),
    "credential": ({"fleet": w.FLEET, "device": w.DEVICE, "incarnation": 1, "nonce": "n"}, (w.STRANGER,)),
}
TRUSTED: dict[str, tuple[bytes, tuple[Signer, ...], Callable[[bytes], Any]]] = {
    "root": (w.seal_root(w.root_of(2)), w.ROOTS, lambda data: trust.advance_root(w.TRUST, data)),
    "site": (w.sealed("site", w.SITE), w.SITES, lambda data: trust.accept_site(w.TRUST, data)),
    "release": (w.sealed("release", w.RELEASE), w.RELEASES, lambda data: trust.accept_release(w.TRUST, data)),
    "floor": (w.sealed("floor", w.FLOOR), w.RELEASES, lambda data: trust.accept_floor(w.TRUST, data)),
    "desired": (w.sealed("desired", w.DESIRED), (w.ONLINE,), lambda data: trust.accept_desired(w.TRUST, data, w.NOW)),
    "command": (w.sealed("command", w.COMMAND), (w.ONLINE,), lambda data: trust.accept_command(w.TRUST, data)),
    "time": (w.sealed("time", w.TIME), (w.ONLINE,), lambda data: trust.accept_time(w.TRUST, data, w.NONCE)),
}


def flips(data: bytes) -> Iterator[bytes]:
    """`data` with one byte changed: each bit flipped, a quote, a letter, the byte left out, the byte doubled."""
    for at, byte in enumerate(data):
        for other in {byte ^ (1 << bit) for bit in range(8)} | {0x22, 0x41} - {byte}:
            yield data[:at] + bytes([other]) + data[at + 1 :]
        yield data[:at] + data[at + 1 :]
        if at and data[at - 1] != byte:
            yield data[:at] + bytes([byte]) + data[at:]


def few_flips(data: bytes) -> Iterator[bytes]:
    """`data` with one byte changed, two ways for each byte; one of them mostly stays a letter."""
    for at, byte in enumerate(data):
        yield from (data[:at] + bytes([byte ^ bit]) + data[at + 1 :] for bit in (0x01, 0x20))


def believed(act: Callable[[bytes], Any], data: bytes) -> bool:
    """Whether the bytes are believed; anything but Rejected and Unfit escapes and fails the test."""
    try:
        act(data)
    except (Rejected, Unfit):
        return False
    return True


def test_every_type_is_flipped() -> None:
    """The two tables of this file cover every document type there is."""
    assert OTHERS.keys() | TRUSTED.keys() == envelope.TYPES.keys()


@pytest.mark.parametrize("name", sorted(envelope.TYPES))
def test_no_envelope_survives_a_flip(name: str) -> None:
    """Every single-bit flip and every replacement of every byte is refused by `open_sealed`."""
    if name in TRUSTED:
        data, signers, _ = TRUSTED[name]
    else:
        payload, signers = OTHERS[name]
        data = envelope.seal(name, payload, signers)
    keys = {signer.id: signer.public for signer in signers}
    assert believed(lambda honest: envelope.open_sealed(honest, name, keys, 1), data)
    assert not [bad for bad in flips(data) if believed(lambda one: envelope.open_sealed(one, name, keys, 1), bad)]


@pytest.mark.parametrize("name", sorted(TRUSTED))
def test_no_rule_believes_a_flip(name: str) -> None:
    """The trust functions refuse every changed byte and raise nothing but Rejected or Unfit."""
    data, _, act = TRUSTED[name]
    assert believed(act, data)
    assert not [bad for bad in few_flips(data) if believed(act, bad)]


def test_no_first_root_survives_a_flip() -> None:
    """A pinned root is refused with any byte changed."""
    def act(data: bytes) -> Any:
        return trust.pin_root(data, w.FLEET, w.PIN, w.DEVICE, 1)

    assert believed(act, w.FIRST)
    assert not [bad for bad in few_flips(w.FIRST) if believed(act, bad)]


def test_no_report_or_telemetry_survives_a_flip() -> None:
    """Reports and telemetry are believed from this device's key only, byte for byte."""
    state = envelope.seal("state", OTHERS["state"][0], [w.STRANGER])
    tele = seal_tele(b"window", w.STRANGER)
    assert open_tele(tele, w.STRANGER.public) == b"window"
    assert open_report(state, "state", w.STRANGER.public).text("device") == w.DEVICE
    assert not believed(lambda data: open_report(data, "state", w.ONLINE.public), state)
    assert not believed(lambda data: open_report(data, "presence", w.STRANGER.public), state)
    assert not [bad for bad in flips(tele) if believed(lambda one: open_tele(one, w.STRANGER.public), bad)]


def test_a_lax_opener_would_be_caught() -> None:
    """The flips find an opener that does not verify: this check can fail."""
    data = w.sealed("time", w.TIME)
    assert [bad for bad in flips(data) if believed(lambda one: envelope.split(one, "time"), bad)]
