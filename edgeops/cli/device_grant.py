"""Logging in where there may be no browser: the device authorization grant of OAuth 2.0 (RFC 8628), as `gh` and `az` do it."""

import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import httpx

from edgeops.wire.errors import Misuse, Unreachable

from .context import Context

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
SCOPES = ("openid", "profile", "groups", "offline_access")
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
MOST_BYTES = 256 << 10
INTERVAL_S, SLOWER_S = 5, 5


@dataclass(frozen=True, slots=True)
class Way:
    """How people log in at a manager, as it says: by whom, as which client, for which audience."""

    issuer: str
    client: str
    audience: str

    @property
    def token(self) -> str:
        """Which of the issuer's tokens is made for the manager: the ID token where the audience is the client itself."""
        return "id_token" if self.audience == self.client else "access_token"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person must do: open `where` and enter `code`."""

    where: str
    code: str
    secret: str = field(repr=False)
    interval_s: float
    ends_s: float


class Issuer:
    """An OpenID Connect issuer, as a public client sees it. Every method raises EdgeopsError and nothing else."""

    def __init__(self, way: Way, sleep: Callable[[float], None] = time.sleep) -> None:
        self._way, self._sleep = way, sleep
        _check(way.issuer)
        local = urlsplit(way.issuer).hostname in LOOPBACK
        self._http = httpx.Client(timeout=httpx.Timeout(30.0, connect=10.0), trust_env=not local)
        self._known = self._ask("GET", way.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if self._known.get("issuer") != way.issuer:
            raise Unreachable("issuer-odd", f"{way.issuer} speaks for another issuer; ask whoever runs the manager")

    def ask(self) -> Asked:
        """Begin: what the person must do now."""
        offered = self._known.get("scopes_supported")
        scopes = [scope for scope in SCOPES if not isinstance(offered, list) or scope in offered]
        form = {"client_id": self._way.client, "scope": " ".join(scopes)}
        form |= {"audience": self._way.audience} if self._way.audience != self._way.client else {}
        if "device_authorization_endpoint" not in self._known:
            text = f"{self._way.issuer} has no device login; ask an admin for an API token and `edgeops context add`"
            raise Unreachable("no-device-login", text)
        told = self._ask("POST", _check(self._known["device_authorization_endpoint"]), form)
        try:
            where = str(told.get("verification_uri_complete") or told["verification_uri"])
            times = float(told.get("interval", INTERVAL_S)), time.monotonic() + float(told["expires_in"])
            return Asked(_check(where), str(told["user_code"]), str(told["device_code"]), *times)
        except (KeyError, TypeError, ValueError):
            raise Unreachable("issuer-odd", f"{self._way.issuer} does not answer a device login as RFC 8628 says") from None

    def wait(self, asked: Asked) -> dict[str, Any]:
        """The tokens, once the person has agreed; raises Misuse("login-refused" | "login-expired")."""
        interval = asked.interval_s
        while time.monotonic() < asked.ends_s:
            self._sleep(interval)
            told = self._token({"grant_type": GRANT, "device_code": asked.secret})
            if "error" not in told:
                return told
            if told["error"] == "slow_down":
                interval += SLOWER_S
            elif told["error"] == "expired_token":
                break
            elif told["error"] != "authorization_pending":
                raise Misuse("login-refused", f"{self._way.issuer} refused the login: {_why(told)}")
        raise Misuse("login-expired", "nobody confirmed the code in time; run `edgeops login` again")

    def refresh(self, token: str) -> dict[str, Any]:
        """New tokens for a refresh token; raises Misuse("login-expired")."""
        told = self._token({"grant_type": "refresh_token", "refresh_token": token})
        if "error" in told:
            raise Misuse("login-expired", f"the login has ended ({_why(told)}); run `edgeops login` again")
        return told

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _token(self, form: dict[str, str]) -> dict[str, Any]:
        url = _check(self._known.get("token_endpoint", ""))
        return self._ask("POST", url, form | {"client_id": self._way.client}, refusals=True)

    def _ask(self, method: str, url: str, form: dict[str, str] | None = None, refusals: bool = False) -> dict[str, Any]:
        """A JSON object; one that refuses (RFC 6749, 5.2) only where the caller reads it."""
        try:
            with self._http.stream(method, url, data=form, headers={"accept": "application/json"}) as answer:
                body = b""
                for chunk in answer.iter_bytes():
                    body += chunk
                    if len(body) > MOST_BYTES:
                        raise Unreachable("issuer-odd", f"{url} sends too much")
            found = httpx.Response(answer.status_code, content=body).json()
        except httpx.HTTPError as error:
            raise Unreachable("issuer-away", f"{url} cannot be asked: {str(error) or type(error).__name__}") from None
        except (ValueError, RecursionError):
            raise Unreachable("issuer-odd", f"{url} answered {answer.status_code} without JSON") from None
        if not isinstance(found, dict) or not (answer.is_success or (refusals and isinstance(found.get("error"), str))):
            said = _why(found) if isinstance(found, dict) else "no JSON object"
            raise Unreachable("issuer-odd", f"{url} answered {answer.status_code}: {said}")
        return found


def logged_in(context: Context, way: Way, told: dict[str, Any]) -> Context:
    """The context with the tokens the issuer gave; raises Unreachable where the one we need is missing."""
    token = told.get(way.token)
    if not isinstance(token, str):
        raise Unreachable("issuer-odd", f"{way.issuer} gave no {way.token}; the manager's oidc.audience asks for one")
    return replace(context, token=token, refresh=str(told.get("refresh_token") or context.refresh), expires=_ends(token, told))


def _ends(token: str, told: dict[str, Any]) -> int:
    """Until when a token holds, as it says itself (`expires_in` speaks of the access token only); 0 for unknown."""
    try:
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        return int(claims["exp"])
    except (ValueError, IndexError, KeyError, TypeError, OverflowError):
        seconds = told.get("expires_in")
        return int(time.time() + seconds) if isinstance(seconds, int | float) and 0 < seconds < 10**9 else 0


def _check(url: object) -> str:
    """An address that may be asked and shown: https, or on this machine."""
    try:
        parts = urlsplit(str(url))
        if parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)):
            return str(url)
    except ValueError:
        pass
    raise Unreachable("issuer-odd", f"{str(url)[:200]!r} is not an https address; nothing secret is sent there")


def _why(told: dict[str, Any]) -> str:
    return str(told.get("error_description") or told.get("error") or "without saying why")[:300]
