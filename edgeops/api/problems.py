"""Problem documents (RFC 9457) for every error: type, title, status, detail, and our stable `reason`."""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from edgeops.manager.problems import Missing
from edgeops.wire.errors import EdgeopsError, Misuse, Rejected, Unfit, Unreachable

from .limits import TooMany

_LOG = logging.getLogger("edgeops.api")
MEDIA = "application/problem+json"
MOST_DETAIL, MOST_ERRORS = 2000, 20
LATER_S = 3600
STATUS: dict[str, int] = {
    "unknown-device": 404, "unknown-release": 404, "unknown-rollout": 404, "unknown-object": 404, "unknown-variant": 404,
    "token-missing": 401, "token-unknown": 401, "token-expired": 401, "token-refused": 401, "role": 403, "device-revoked": 403,
    "device-exists": 409, "release-exists": 409, "missing-objects": 409, "rollout-conflict": 409, "illegal-transition": 409,
    "token-exists": 409, "last-admin": 409, "selector-empty": 422, "too-large": 413, "bad-range": 416, "unknown-token": 404,
    "oidc-malformed": 401, "oidc-header": 401, "oidc-algorithm": 401, "oidc-key": 401, "oidc-signature": 401, "oidc-issuer": 401,
    "oidc-audience": 401, "oidc-client": 401, "oidc-kind": 401, "oidc-claims": 401, "oidc-expired": 401, "oidc-early": 401,
    "oidc-role": 403, "no-login": 404,
    "not-proposed": 409, "proposal-expired": 409, "plan-mismatch": 409, "plan-changed": 409, "approved-already": 409,
    "beyond-the-plan": 409,
    "release-unsigned": 409, "below-floor": 409, "floor-unproven": 409, "floor-busy": 409, "floor-in-use": 409,
    "site-unsigned": 409, "site-stale": 409, "unknown-ca": 409, "online-key": 409, "floor-lowered": 409,
    "disk-full": 507, "too-many": 429, "token-raced": 409, "enrolment-rejected": 403, "renewal-rejected": 403, "renew-refused": 403,
    "wrong-name": 403, "device-quarantined": 403, "renewed-lately": 429, "not-json": 415, "no-websocket": 404,
    "credential-refused": 403, "device-decommissioned": 409, "fingerprint-taken": 409, "nothing-pending": 409,
    "not-quarantined": 409, "fingerprint-changed": 409,
}  # fmt: skip
KINDS: tuple[tuple[type[EdgeopsError], str, int, str], ...] = (
    (Rejected, "rejected", 422, "Not to be believed"),
    (Unreachable, "unreachable", 503, "Not reachable"),
    (Unfit, "unfit", 409, "Not fit"),
    (Misuse, "misuse", 400, "Wrong request"),
)


class Problem(BaseModel):
    """What every error is answered with."""

    type: str = Field(description="`urn:edgeops:error:` and the kind.")
    title: str = Field(description="The kind in words.")
    status: int = Field(description="The HTTP status, once more.")
    detail: str = Field(description="What happened, to what, and what to do next.")
    reason: str = Field(description="A stable word for machines.")
    kind: str = Field(description="Who must act: misuse, rejected, unreachable or unfit.")
    missing: list[str] = Field([], description="Digests of objects to upload first (only with `missing-objects`).")
    errors: list[dict[str, str]] = Field([], description="Where the request has another form (only with `validation`).")


ANSWER = {"description": "A problem document (RFC 9457).", "content": {MEDIA: {"schema": Problem.model_json_schema()}}}


def document(status: int, kind: str, title: str, reason: str, detail: str, **more: Any) -> JSONResponse:
    """The answer for one error."""
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    shown = detail if len(detail) <= MOST_DETAIL else detail[: MOST_DETAIL - 1] + "…"
    body = {
        "type": f"urn:edgeops:error:{kind}", "title": title, "status": status, "detail": shown, "reason": reason, "kind": kind,
    }  # fmt: skip
    return JSONResponse({**body, **more}, status, headers, MEDIA)


def of_error(error: EdgeopsError) -> JSONResponse:
    """The answer for one of our own errors."""
    _, kind, status, title = next((row for row in KINDS if isinstance(error, row[0])), KINDS[-1])
    more = {"missing": error.digests} if isinstance(error, Missing) else {}
    answer = document(STATUS.get(error.reason, status), kind, title, error.reason, error.message, **more)
    if answer.status_code == 429:
        answer.headers["Retry-After"] = str(error.retry_s if isinstance(error, TooMany) else LATER_S)
    return answer


def too_large(most: int) -> Misuse:
    """The error for a body of more than `most` bytes."""
    return Misuse("too-large", f"a request of this kind has at most {most} bytes; split it")


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem document."""
    app.add_exception_handler(EdgeopsError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(UnicodeEncodeError, _not_text)
    app.add_exception_handler(Exception, _unexpected)


def _ours(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, EdgeopsError)
    return of_error(error)


def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = error.errors()[:MOST_ERRORS]
    errors = [{"where": ".".join(map(str, item["loc"]))[:200], "what": str(item["msg"])[:200]} for item in found]
    detail = "; ".join(f"{item['where']}: {item['what']}" for item in errors[:3])
    return document(422, "misuse", "Wrong request", "validation", detail or "the request has another form", errors=errors)


def _not_text(_request: Request, _error: Exception) -> JSONResponse:
    # JSON can spell half a character ("\\ud800"), which nothing can store.
    return document(422, "misuse", "Wrong request", "validation", "the request holds text that is not Unicode")


def _http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    reasons = {404: "not-found", 405: "method-not-allowed", 408: "too-slow", 413: "too-large", 400: "bad-request"}
    reason = reasons.get(error.status_code, f"http-{error.status_code}")
    title = HTTPStatus(error.status_code).phrase
    answer = document(error.status_code, "misuse", title, reason, str(error.detail))
    answer.headers.update(error.headers or {})
    return answer


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    _LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
    detail = "the manager met an error of its own; its log says more, please report it"
    return document(500, "unreachable", "Internal error", "internal", detail)
