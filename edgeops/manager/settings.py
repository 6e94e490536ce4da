"""The manager's own settings, `edgeops.toml`: at most twenty, each with a default; an unknown one is refused by name."""

import difflib
import json
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from edgeops.wire.errors import Misuse
from edgeops.wire.fields import ID

from .login import Login, login_from

BROKERS = ("auto", "mosquitto", "built-in")


def _setting(default: Any, text: str, low: int = 1, high: int = 10**9) -> Any:
    return field(default=default, metadata={"help": text, "low": low, "high": high})


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting with its default; units stand in the names."""

    fleet: str = _setting("fleet", "Name of the fleet; stands in every signed document and cannot be changed later.")
    addresses: tuple[str, ...] = _setting(("localhost", "127.0.0.1"), "Names and IPs devices reach us by; in the certificate.")
    bind: str = _setting("127.0.0.1", "Address to listen on; 0.0.0.0 for all.")
    https_port: int = _setting(8443, "Port of API and enrolment; `edgeops site sign` tells devices of another one.", 0, 65_535)
    mqtt_port: int = _setting(8883, "Port of the broker; `edgeops site sign` tells devices of another one.", 0, 65_535)
    wss_port: int = _setting(0, "Port for browsers, as secure WebSocket; 0 for none.", 0, 65_535)
    broker: str = _setting("auto", "auto (mosquitto where there is one), mosquitto or built-in.")
    token_ttl_s: int = _setting(86_400, "How long an enrolment token may be redeemed.", 60, 90 * 86_400)
    certificate_days: int = _setting(30, "Life of a device's certificate.", 1, 3650)
    renew_late_days: int = _setting(90, "How long after its end a certificate is renewed without an operator's approval.", 0, 3650)
    rollout_approvals: int = _setting(1, "How many operators must agree to a rollout, its starter included.", 1, 16)
    desired_days: int = _setting(30, "Life of a desired document; it is renewed long before.", 1, 3650)
    max_object_bytes: int = _setting(512 << 20, "Largest object that may be uploaded.", 1 << 10, 1 << 40)
    tick_ms: int = _setting(1_000, "How often deadlines and gates are looked at.", 10, 3_600_000)
    want_window_ms: int = _setting(500, "How long wants are collected before missing frames are sent.", 1, 60_000)
    frames_per_s: int = _setting(200, "Pace of broadcast frames of at most 60 KiB each.", 1, 1_000_000)
    keep_windows_days: int = _setting(90, "How long telemetry windows are kept.", 1, 36_500)
    keep_windows: int = _setting(800_000, "How many telemetry windows of one device are kept, about 1 KB each.", 100)
    oidc: Login = field(
        default=Login(),
        metadata={"help": "Who may log in with OpenID Connect: a table of issuer, audience, clients and roles (operators.md)."},
    )


def load(path: Path) -> Settings:
    """Read the settings; raises Misuse("no-manager" | "settings-malformed" | "setting-unknown" | "setting-invalid")."""
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise Misuse("no-manager", f"{path} is missing; run `edgeops init` first") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misuse("settings-malformed", f"{path} is not TOML: {error}") from None
    return settings_from(raw)


def settings_from(raw: dict[str, Any]) -> Settings:
    """Check named values; raises Misuse."""
    known = {item.name: item for item in fields(Settings)}
    for name, value in raw.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise Misuse("setting-unknown", f"edgeops.toml: there is no setting {name!r}; {hint}")
        if name != "oidc":
            _check(name, value, known[name])
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}
    values["oidc"] = login_from(raw.get("oidc", {}))
    settings = Settings(**values)
    if not ID.fullmatch(settings.fleet):
        raise Misuse("setting-invalid", f"edgeops.toml: fleet = {settings.fleet!r} must match {ID.pattern}")
    if settings.broker not in BROKERS:
        raise Misuse("setting-invalid", f"edgeops.toml: broker = {settings.broker!r} must be one of {', '.join(BROKERS)}")
    return settings


def _check(name: str, value: Any, known: Any) -> None:
    default, low, high = known.default, known.metadata["low"], known.metadata["high"]
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple) or not value or not all(isinstance(item, str) for item in value):
            raise Misuse("setting-invalid", f"edgeops.toml: {name} must be a list of texts, not {value!r}")
    elif isinstance(value, bool) or type(value) is not type(default):
        raise Misuse("setting-invalid", f"edgeops.toml: {name} must be of the kind of {default!r}, not {value!r}")
    elif isinstance(value, int) and not low <= value <= high:
        raise Misuse("setting-invalid", f"edgeops.toml: {name} = {value} is out of bounds: {low} to {high}")


def dump(settings: Settings) -> str:
    """The settings as TOML with their explanation."""
    lines = ["# Settings of this edgeops manager. Restart it after a change."]
    for item in fields(Settings):
        value = getattr(settings, item.name)
        shown = str(value) if isinstance(value, Login) else json.dumps(value)
        lines += [f"# {item.metadata['help']}", f"{item.name} = {shown}"]
    return "\n".join(lines) + "\n"
