"""Running the manager in this process: broker, loops and the HTTPS API; nothing is left behind when it stops."""

import contextlib
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType

import uvicorn

from edgeops.broker.reach import CIPHERS, claim_port
from edgeops.manager.files import alone
from edgeops.manager.hub import open_hub
from edgeops.manager.layout import Layout
from edgeops.manager.serve import Running
from edgeops.manager.settings import load
from edgeops.manager.site import check_site, url
from edgeops.wire.errors import Misuse, Unreachable

from .app import make_app
from .connections import Patient

START_S = 15.0
FILES = 1 << 17
# At once; each costs some 100 KB with its TLS. More are told 503, and come back.
CONNECTIONS = 4096


class Serving:
    """A manager at work. `url` is where the API answers; `stop` ends everything and may be called again."""

    def __init__(self, folder: Path, now: Callable[[], int] = lambda: int(time.time())) -> None:
        """Open, start broker and loops, bind the port; raises Misuse("already-running" | "port-busy" | …), Unreachable."""
        layout = Layout(folder)
        load(layout.settings)
        with contextlib.ExitStack() as undo:
            # Two managers on one database would each do half of everything.
            undo.enter_context(alone(layout.lock))
            self._hub = open_hub(folder, now)
            undo.callback(self._hub.close)
            settings = self._hub.settings
            with _naming("https_port", layout):
                self._socket = _bind(settings.bind, settings.https_port)
            undo.callback(self._socket.close)
            self.port = int(self._socket.getsockname()[1])
            self._hub = self._hub.with_settings(replace(settings, https_port=self.port))
            with _naming("mqtt_port", layout):
                self.running = Running(self._hub)
            undo.callback(self.running.stop)
            self.running.on_renewed = self._load_certificate
            check_site(settings, self._hub.site_document)
            self.running.start()
            self._server = uvicorn.Server(self._config())
            self._thread = threading.Thread(target=self._serve, name="edgeops-https", daemon=True)
            undo.callback(self._stop_server)
            self._thread.start()
            self._await_start()
            self._undo = undo.pop_all()
        self.url = url("https", settings.addresses[0], self.port)

    def _config(self) -> uvicorn.Config:
        layout = self._hub.layout
        return uvicorn.Config(
            make_app(self.running.hub, self.running), ssl_certfile=str(layout.certificate("server")),
            ssl_keyfile=str(layout.tls_key("server")), ssl_ciphers=CIPHERS, log_config=None, access_log=False, lifespan="off",
            timeout_keep_alive=30, timeout_graceful_shutdown=2, server_header=False, http=Patient, ws="none",
            limit_concurrency=CONNECTIONS,
            # Nobody stands before us whose word for an address counts.
            proxy_headers=False,
        )  # fmt: skip

    def _load_certificate(self) -> None:
        """The server's certificate is another one now; connections from here on see it."""
        if self._server.config.ssl is not None:
            self._server.config.ssl.load_cert_chain(self._hub.layout.certificate("server"), self._hub.layout.tls_key("server"))

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])

    def _await_start(self) -> None:
        deadline = time.monotonic() + START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise Unreachable("api-failed", f"the HTTPS server on port {self.port} did not start; the log says more")
            time.sleep(0.01)

    @property
    def alive(self) -> bool:
        """Whether API and broker still run."""
        return not self.ended

    @property
    def ended(self) -> str:
        """What has ended by itself, empty while all runs."""
        broker = self.running.broker
        if self.running.renewing.locked():
            return ""  # the broker starts anew
        return "" if self._thread.is_alive() and broker.alive() else "the API" if broker.alive() else f"the broker ({broker.kind})"

    def stop(self) -> None:
        """Stop the API first, then loops and broker, then close the database and let the folder go."""
        self._undo.close()

    def _stop_server(self) -> None:
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(15.0)


def serve(folder: Path, ready: Callable[[Serving], None] = lambda _serving: None) -> None:
    """Run until SIGINT or SIGTERM; `ready` is called once everything answers. Raises Misuse, Unreachable("broker-died")."""
    stopping = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    _open_many_files()
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        serving = Serving(folder)
        try:
            ready(serving)
            while not stopping.wait(0.5):
                if ended := serving.ended:
                    raise Unreachable("broker-died", f"{ended} ended by itself, so the manager ends too; start it again")
        finally:
            serving.stop()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _open_many_files() -> None:
    """Each device is a file to the broker, our child: the usual 1,024 would be the size of the largest fleet."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(ValueError, OSError):  # some kernels have a lower limit of their own
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@contextlib.contextmanager
def _naming(setting: str, layout: Layout) -> Iterator[None]:
    """Say which setting a busy port or a foreign address comes from."""
    try:
        yield
    except Misuse as error:
        settings = load(layout.settings)
        if error.reason == "port-busy":
            port = getattr(settings, setting)
            text = f"port {port} on {settings.bind} is taken by another program: end it, or choose another {setting}"
            raise Misuse(error.reason, f"{text} in {layout.settings} and run `edgeops site sign`") from error
        if error.reason == "bad-address":
            raise Misuse(error.reason, f"{error.message} (bind in {layout.settings})") from error
        raise


def _bind(host: str, port: int) -> socket.socket:
    claimed = claim_port(host, port)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, claimed))
        bound.listen(128)
    except OSError as error:
        bound.close()
        raise Misuse("port-busy", f"port {claimed} on {host} cannot be bound ({error}); choose another one") from None
    return bound
