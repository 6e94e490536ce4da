"""What the agent tells the system that started it: the right words, as often as asked, and nothing that could stop it."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeops_agent.shell.notify import Lifeline


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """Somebody at NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def heard(listener: socket.socket) -> list[str]:
    """All that was said so far."""
    said = []
    while True:
        try:
            said.append(listener.recv(100).decode())
        except BlockingIOError:
            return said


def test_ready_beats_and_stopping_are_said(listener: socket.socket) -> None:
    """READY once, then a beat a quarter of the watchdog's span apart however often the loop turns, then STOPPING."""
    clock = [100.0]
    told = {"NOTIFY_SOCKET": listener.getsockname(), "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}
    line = Lifeline(told, lambda: clock[0])
    line.ready()
    for _ in range(121):
        line.beat()
        clock[0] += 0.25
    line.stopping()
    assert heard(listener) == ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WATCHDOG_USEC": ""}, ["READY=1"]),
        ({"WATCHDOG_USEC": "soon"}, ["READY=1"]),
        ({"WATCHDOG_USEC": "9" * 400}, ["READY=1"]),
        ({"WATCHDOG_USEC": str(2**64 - 1)}, ["READY=1", "WATCHDOG=1"]),
        ({"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}, ["READY=1"]),
        ({"WATCHDOG_USEC": "1000"}, ["READY=1", "WATCHDOG=1"]),
    ],
)
def test_no_beat_where_none_is_asked_of_us(listener: socket.socket, environment: dict[str, str], said: list[str]) -> None:
    """A watchdog that is not there, not a number or meant for another process hears nothing."""
    line = Lifeline({"NOTIFY_SOCKET": listener.getsockname(), **environment})
    line.ready()
    line.beat()
    assert heard(listener) == said


def test_an_abstract_address_is_understood() -> None:
    """A leading @ stands for the zero byte of Linux's abstract names."""
    name = f"edgeops-notify-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name}")
        Lifeline({"NOTIFY_SOCKET": f"@{name}"}).ready()
        sock.setblocking(False)
        assert sock.recv(100) == b"READY=1"


def test_nobody_listening_is_no_harm(tmp_path: Path, listener: socket.socket) -> None:
    """Without a socket, with one that is gone, and with one whose reader sleeps, saying something returns and raises nothing."""
    Lifeline({}).ready()
    Lifeline({"NOTIFY_SOCKET": str(tmp_path / "gone")}).stopping()
    line = Lifeline({"NOTIFY_SOCKET": listener.getsockname()})
    for _ in range(10_000):
        line.ready()
    assert 0 < len(heard(listener)) < 10_000
