"""A TCP line between an agent and its manager that can be cut, reset, or go dead in one direction or both."""

import contextlib
import socket
import struct
import threading

CHUNK = 1 << 14
RESET = struct.pack("ii", 1, 0)
UP, DOWN = "up", "down"
BOTH = frozenset({UP, DOWN})


class Line:
    """Passes connections to `near` on to `far`. `close` ends it and all that runs over it."""

    def __init__(self, near: tuple[str, int], far: tuple[str, int]) -> None:
        self._far = far
        self._server = socket.create_server(near)
        self._pairs: dict[tuple[socket.socket, socket.socket], int] = {}
        self._changing = threading.Condition()
        self._dead: frozenset[str] = frozenset()
        self._cut = self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Everything ends, in an orderly way, and nobody gets through until `mend`."""
        with self._changing:
            self._cut = True
        self._end_all(reset=False)

    def reset(self) -> None:
        """Everything ends with a reset, and what was under way is lost; who comes anew gets through."""
        self._end_all(reset=True)

    def go_dead(self, directions: frozenset[str] = BOTH) -> None:
        """Nothing arrives in these directions any more, and neither end is told."""
        with self._changing:
            self._dead = directions

    def mend(self) -> None:
        """All passes again; what was held up arrives late."""
        with self._changing:
            self._dead, self._cut = frozenset(), False
            self._changing.notify_all()

    def close(self) -> None:
        """The end."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._end_all(reset=True)

    def _end_all(self, reset: bool) -> None:
        with self._changing:
            ending, self._pairs = self._pairs, {}
            self._changing.notify_all()
        for sock in (sock for pair in ending for sock in pair):
            with contextlib.suppress(OSError):
                if reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                # A socket that a thread reads from is not closed before that thread wakes up.
                sock.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            try:
                if self._cut:
                    raise ConnectionError
                pair = near, socket.create_connection(self._far, 5)
            except OSError:
                near.close()
                continue
            with self._changing:
                self._pairs[pair] = 2
            for direction, source, to in ((UP, *pair), (DOWN, *reversed(pair))):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                source.settimeout(None)
                threading.Thread(target=self._pump, args=(pair, direction, source, to), daemon=True).start()

    def _pump(self, pair: tuple[socket.socket, socket.socket], direction: str, source: socket.socket, to: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while (data := source.recv(CHUNK)) and self._passes(pair, direction):
                to.sendall(data)
        if self._passes(pair, direction):
            with contextlib.suppress(OSError):
                to.shutdown(socket.SHUT_WR)
        with self._changing:
            if pair in self._pairs:
                self._pairs[pair] -= 1
                if self._pairs[pair] == 0:
                    del self._pairs[pair]
                    for sock in pair:
                        sock.close()

    def _passes(self, pair: tuple[socket.socket, socket.socket], direction: str) -> bool:
        """Wait while the line is dead; False when the connection has been ended."""
        with self._changing:
            self._changing.wait_for(lambda: direction not in self._dead or pair not in self._pairs)
            return pair in self._pairs
