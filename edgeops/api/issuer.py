"""The issuer's public keys: found by its discovery document, kept for a while, asked for again when a token names a new one.

Nothing here trusts what it reads beyond the issuer's word for its own keys: sizes, times and numbers are bounded, and no address
is followed that is not https (or, for an issuer on this machine, loopback).
"""

import json
import ssl
import time
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import httpx

from edgeops.manager.login import LOOPBACK
from edgeops.wire.errors import Misuse, Unreachable

from .limits import Limiter, TooMany

MOST_BYTES, MOST_KEYS = 256 << 10, 100
PATIENCE_S, READ_S = 5.0, 3.0
# Keys are read again after a while, since an issuer withdraws them too; while it is away, those known serve for a day.
FRESH_S, STALE_S = 600.0, 86_400.0
REFRESHES, SPAN_S = 3, 90.0
Jwk = Mapping[str, Any]


class Issuer:
    """The keys of the issuer at `url`, by their id. May be asked from many threads; one of them at a time asks the issuer."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.url, self._clock = url, clock
        self._keys: dict[str, Jwk] | None = None
        self._read_at, self._lock, self._refreshes = 0.0, Lock(), Limiter(REFRESHES, SPAN_S)

    def key(self, name: str) -> Jwk:
        """The key called `name`; raises Misuse("oidc-key"), Unreachable("issuer-away" | "issuer-odd" | "issuer-busy")."""
        known = self._current()
        if name not in known:
            known = self._asked(known)
        if name not in known:
            raise Misuse("oidc-key", f"the token is signed with a key that {self.url} does not publish; log in again")
        return known[name]

    def _current(self) -> dict[str, Jwk]:
        """The keys known, read again if they are old. Those of a day may be used while the issuer cannot be asked."""
        age = self._clock() - self._read_at
        if self._keys is not None and age < FRESH_S:
            return self._keys
        if self._keys is None or age > STALE_S:
            return self._first()
        try:
            return self._asked(self._keys)
        except Unreachable:
            return self._keys

    def _first(self) -> dict[str, Jwk]:
        """The keys, when nothing can be done without: who comes meanwhile waits for the one that asks."""
        before = self._read_at
        with self._lock:
            if self._keys is not None and self._read_at != before:
                return self._keys
            try:
                return self._read()
            except TooMany:
                raise Unreachable("issuer-away", f"{self.url} did not answer as it should; it is asked again in a minute") from None

    def _asked(self, known: dict[str, Jwk]) -> dict[str, Jwk]:
        """The keys, read again unless that was done too often: a stranger's invented key ids must not become a flood there."""
        if not self._lock.acquire(blocking=False):
            raise Unreachable("issuer-busy", f"the keys of {self.url} are being read; try again in a second")
        try:
            return self._read()
        except TooMany:
            return known
        finally:
            self._lock.release()

    def _read(self) -> dict[str, Jwk]:
        self._refreshes.take("", self._clock())
        found = discover(self.url)
        keys = fetch(_safe(found.get("jwks_uri"), self.url)).get("keys")
        if not isinstance(keys, list) or len(keys) > MOST_KEYS:
            raise Unreachable("issuer-odd", f"{self.url} publishes no list of keys")
        signing = [one for one in keys if isinstance(one, dict) and one.get("use", "sig") == "sig"]
        self._keys, self._read_at = {one["kid"]: one for one in signing if isinstance(one.get("kid"), str)}, self._clock()
        return self._keys


def discover(issuer: str) -> dict[str, Any]:
    """The issuer's discovery document; raises Unreachable, also where it speaks for another issuer."""
    found = fetch(issuer.rstrip("/") + "/.well-known/openid-configuration")
    if found.get("issuer") != issuer:
        raise Unreachable("issuer-odd", f"{issuer} calls itself {str(found.get('issuer'))[:200]!r}; write oidc.issuer exactly so")
    return found


def fetch(url: str) -> dict[str, Any]:
    """A JSON object of a bounded size, in a bounded time, without following anybody elsewhere."""
    deadline, body = time.monotonic() + PATIENCE_S, b""
    local = urlsplit(url).hostname in LOOPBACK
    try:
        with (
            httpx.Client(timeout=READ_S, verify=ssl.create_default_context(), trust_env=not local) as http,
            http.stream("GET", url, headers={"accept": "application/json", "accept-encoding": "identity"}) as answer,
        ):
            if answer.status_code != 200:
                raise Unreachable("issuer-away", f"{url} answered {answer.status_code}")
            for chunk in answer.iter_raw():
                body += chunk
                if len(body) > MOST_BYTES or time.monotonic() > deadline:
                    raise Unreachable("issuer-odd", f"{url} sends too much or too slowly")
        found = json.loads(body)
    except httpx.HTTPError as error:
        raise Unreachable("issuer-away", f"{url} cannot be asked: {type(error).__name__}") from None
    except (ValueError, RecursionError):
        raise Unreachable("issuer-odd", f"{url} sends no JSON") from None
    if not isinstance(found, dict):
        raise Unreachable("issuer-odd", f"{url} sends no JSON object")
    return found


def _safe(url: object, issuer: str) -> str:
    """An address the issuer named, if it is one we may ask."""
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        near = parts.scheme == "http" and parts.hostname in LOOPBACK and urlsplit(issuer).scheme == "http"
        if (parts.scheme == "https" and parts.hostname) or near:
            return parts.geturl()
    except ValueError:
        pass
    raise Unreachable("issuer-odd", f"{issuer} names an address that is not https")
