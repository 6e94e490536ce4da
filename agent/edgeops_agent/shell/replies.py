"""JSON replies of the local endpoint, and the status each refusal has. Both the worker and the supervisor answer with these."""

import json
from typing import Any

from edgeops import __version__
from edgeops.wire.errors import EdgeopsError, Unfit

from .http import Response

_STATUS = {
    "unknown-path": 404,
    "unknown-model": 404,
    "wrong-method": 405,
    "too-slow": 408,
    "length-required": 411,
    "body-too-large": 413,
    "json-too-large": 413,
    "head-too-large": 431,
    "call-failed": 500,
    "internal": 500,
}
MOST_TEXT = 500
SERVER = {
    "name": "edgeops-agent",
    "version": __version__,
    "extensions": ["binary_tensor_data", "model_configuration", "model_repository", "statistics"],
}


def json_reply(status: int, value: Any) -> Response:
    """`value` as JSON."""
    return Response(status, (json.dumps(value).encode(),))


def refuse(error: EdgeopsError) -> Response:
    """The reply to a failed request: `{"error": message, "reason": kebab-case}`."""
    fallback = 503 if isinstance(error, Unfit) else 400
    return json_reply(_STATUS.get(error.reason, fallback), {"error": error.message[:MOST_TEXT], "reason": error.reason})
