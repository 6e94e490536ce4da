"""The site document tells devices where the manager is: made from the settings, signed anew when those have changed."""

from edgeops.wire import envelope
from edgeops.wire.desired import Floor
from edgeops.wire.errors import Misuse
from edgeops.wire.fields import Fields
from edgeops.wire.keys import Signer
from edgeops.wire.root import Site

from .layout import Layout
from .settings import Settings

MOST_ENDPOINTS = 8
Endpoints = tuple[tuple[str, ...], tuple[str, ...]]


def url(scheme: str, host: str, port: int) -> str:
    """A URL; IPv6 addresses go into brackets."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def endpoints(settings: Settings) -> Endpoints:
    """Where these settings let devices reach MQTT and HTTPS, in order of preference; browsers (wss) come last."""
    mqtt = tuple(url("mqtts", name, settings.mqtt_port) for name in settings.addresses)
    wss = tuple(url("wss", name, settings.wss_port) for name in settings.addresses) if settings.wss_port else ()
    https = tuple(url("https", name, settings.https_port) for name in settings.addresses)[:MOST_ENDPOINTS]
    return (*mqtt, *wss)[:8], https


def first_site(settings: Settings, ca: str, signer: Signer, now: int) -> bytes:
    """Site version 1, with the endpoints of these settings."""
    mqtt, https = endpoints(settings)
    return envelope.seal("site", Site(settings.fleet, 1, now, (ca,), mqtt, https).payload(), [signer])


def read_site(document: bytes) -> Site:
    """A site document of our own."""
    return Site.parse(envelope.contents(document, "site"))


def read_floor(document: bytes | None) -> Floor:
    """A floor document of our own; version 0, without floors, before there is one."""
    if document is None:
        return Floor("", 0, {})
    return Floor.parse(envelope.contents(document, "floor"))


def check_site(settings: Settings, document: bytes) -> None:
    """Raise Misuse("site-stale") when devices would be sent to ports or names where nobody answers.

    Other endpoints may stand beside ours: a fleet that moves hears of the new ones before it leaves the old.
    """
    site, (mqtt, https) = read_site(document), endpoints(settings)
    if not set(mqtt) <= set(site.mqtt) or not set(https) <= set(site.https):
        told, now = ", ".join((*site.mqtt, *site.https)), ", ".join(sum(endpoints(settings), ()))
        text = f"the signed site document sends devices to {told}, the settings say {now}; run `edgeops site sign`"
        raise Misuse("site-stale", text)


def next_site(layout: Layout, settings: Settings, before: Site, beside: Endpoints, cas: tuple[str, ...], now: int) -> Site:
    """The site document that follows `before`, with the endpoints of these settings behind those `beside` them.

    Raises Misuse("setting-invalid") for a port of 0, which is another at each start; "too-many-endpoints".
    """
    if not (settings.https_port and settings.mqtt_port):
        raise Misuse("setting-invalid", f"{layout.settings}: a port of 0 is another at each start; devices need one that stays")
    mqtt, https = (tuple(dict.fromkeys((*more, *ours))) for more, ours in zip(beside, endpoints(settings), strict=True))
    if max(len(mqtt), len(https)) > MOST_ENDPOINTS:
        raise Misuse("too-many-endpoints", f"a site document holds at most {MOST_ENDPOINTS} endpoints of a kind; leave some out")
    made = Site(settings.fleet, before.version + 1, max(now, before.issued), cas, mqtt, https)
    return Site.parse(Fields(made.payload(), "site"))
