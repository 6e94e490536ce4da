"""The site document tells devices where the manager is: made from the settings, and signed anew when those have changed."""

from cryptography import x509

from edgeops.wire import canonical, envelope
from edgeops.wire.desired import Floor
from edgeops.wire.errors import Misuse
from edgeops.wire.fields import Fields
from edgeops.wire.keys import Signer
from edgeops.wire.root import Site

from . import pki
from .files import write_whole
from .layout import Layout
from .settings import Settings

Endpoints = tuple[tuple[str, ...], tuple[str, ...]]


def url(scheme: str, host: str, port: int) -> str:
    """A URL; IPv6 addresses go into brackets."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def endpoints(settings: Settings) -> Endpoints:
    """Where these settings let devices reach MQTT and HTTPS, in order of preference; browsers (wss) come last."""
    mqtt = tuple(url("mqtts", name, settings.mqtt_port) for name in settings.addresses)
    wss = tuple(url("wss", name, settings.wss_port) for name in settings.addresses) if settings.wss_port else ()
    https = tuple(url("https", name, settings.https_port) for name in settings.addresses)[:8]
    return (*mqtt, *wss)[:8], https


def make_site(settings: Settings, version: int, cas: tuple[str, ...], signer: Signer, now: int) -> bytes:
    """A site document with the endpoints of these settings."""
    mqtt, https = endpoints(settings)
    return envelope.seal("site", Site(settings.fleet, version, now, cas, mqtt, https).payload(), [signer])


def read_site(document: bytes) -> Site:
    """A site document of our own."""
    return Site.parse(Fields.of(canonical.decode(envelope.split(document, "site")[0], "site"), "site"))


def read_floor(document: bytes | None) -> Floor:
    """A floor document of our own; version 0, without floors, before there is one."""
    if document is None:
        return Floor("", 0, {})
    return Floor.parse(Fields.of(canonical.decode(envelope.split(document, "floor")[0], "floor"), "floor"))


def check_site(settings: Settings, document: bytes) -> None:
    """Raise Misuse("site-stale") when devices would be sent to ports or names where nobody answers.

    Other endpoints may stand beside ours: a fleet that moves hears of the new ones before it leaves the old.
    """
    site, (mqtt, https) = read_site(document), endpoints(settings)
    if not set(mqtt) <= set(site.mqtt) or not set(https) <= set(site.https):
        told, now = ", ".join((*site.mqtt, *site.https)), ", ".join(sum(endpoints(settings), ()))
        text = f"the signed site document sends devices to {told}, the settings say {now}; run `edgeops site sign`"
        raise Misuse("site-stale", text)


def renew_site(layout: Layout, settings: Settings, signer: Signer, now: int) -> Site:
    """Sign the next site document, and give the server a certificate for its names if those have changed.

    Raises Misuse("setting-invalid") for a port of 0, which is another at each start.
    """
    if not (settings.https_port and settings.mqtt_port):
        raise Misuse("setting-invalid", f"{layout.settings}: a port of 0 is another at each start; devices need one that stays")
    before = read_site(layout.newest("site").read_bytes())
    document = make_site(settings, before.version + 1, before.cas, signer, now)
    _certify_server(layout, settings, now)
    write_whole(layout.document(f"site-{before.version + 1}"), document)
    return read_site(document)


def _certify_server(layout: Layout, settings: Settings, now: int) -> None:
    held = x509.load_pem_x509_certificate(layout.certificate("server").read_bytes())
    names = held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if {str(name.value) for name in names} != set(pki.server_names((*settings.addresses, settings.bind))):
        ca = pki.Pair.load(layout.certificate("ca").read_bytes(), layout.tls_key("ca").read_bytes())
        pair = pki.make_server(ca, (*settings.addresses, settings.bind), now)
        write_whole(layout.tls_key("server"), pair.key_pem, 0o600)
        write_whole(layout.certificate("server"), pair.certificate_pem)
