"""How this device calls its manager: to which brokers, as whom, and where what it hears goes."""

from collections.abc import Callable

from edgeops.wire import topics
from edgeops.wire.root import Site

from .clock import Clock
from .credentials import files_of
from .identity import Paths
from .inbox import Inbox, Message
from .journal import Sparing, say
from .link import DeviceLink, LinkSettings
from .reach import mqtt_ways


def settings_for(paths: Paths, sites: tuple[Site, ...], device: str, will: tuple[str, bytes]) -> LinkSettings:
    """What to connect with now; without any readable site there is nobody to call, which is said."""
    key, certificate = files_of(paths)
    ways = mqtt_ways(sites)
    if not ways:
        say("link", f"no site document can be read, so nobody can be reached; what runs goes on; put one at {paths.site}", "error")
    return LinkSettings(ways, device, certificate, key, *will)


def _teller() -> Callable[[bool, str, str], None]:
    log = Sparing()

    def tell(connected: bool, url: str, why: str) -> None:
        text = f"connected to {url}" if connected else f"not connected to {url}: {why}"
        log.say("link", text, "info" if connected else "warn", str(connected), connected=connected, url=url, reason=why)

    return tell


def make_link(settings: LinkSettings, inbox: Inbox, clock: Clock, chance: Callable[[], float]) -> DeviceLink:
    """A link that puts "connected" and messages into the inbox; it is not started yet."""
    link = DeviceLink(
        settings, lambda: inbox.put("connected"), lambda topic, data: inbox.offer(Message(topic, data)),
        chance, clock.monotonic, clock.least,
    )  # fmt: skip
    link.subscribe(topics.downs_of(settings.device))
    link.tell = _teller()
    return link
