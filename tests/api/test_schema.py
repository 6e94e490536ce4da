"""The API against its own OpenAPI document, by schemathesis: generated requests, good and bad, never meet a 5xx nor an answer it
does not describe. Bounded and the same in every run."""

import shutil
from pathlib import Path
from typing import Any, cast

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from manager_house import Clock, make_release, release_signer
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from edgeops.api import reference
from edgeops.api.app import PREFIX, make_app
from edgeops.manager import tokens
from edgeops.manager.hub import Hub, open_hub
from edgeops.store import rows
from edgeops.store.tables import tokens as table

EXAMPLES = 8
ALWAYS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "allow_header_conformance",
)  # fmt: skip
# What the schema allows may be refused for what it says; what the schema forbids must be.
CHECKED = {GenerationMode.POSITIVE: ALWAYS, GenerationMode.NEGATIVE: (*ALWAYS, "negative_data_rejection")}
BOUNDED = settings(
    max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@pytest.fixture(scope="module")
def furnished(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a manager with a device and a release."""
    folder = shutil.copytree(template, tmp_path_factory.mktemp("furnished") / "m")
    hub = open_hub(folder, Clock())
    client = TestClient(make_app(hub), "https://test", headers=_bearer(hub))
    client.post(f"{PREFIX}/devices", json={"id": "pi-1", "labels": {"site": "berlin"}}).raise_for_status()
    made = make_release(release_signer(folder))
    for digest, data in made.objects.items():
        client.put(f"{PREFIX}/objects/{digest}", content=data).raise_for_status()
    client.post(f"{PREFIX}/releases", json={"envelope": made.envelope.decode()}).raise_for_status()
    hub.close()
    return folder


def _bearer(hub: Hub) -> dict[str, str]:
    with hub.store.write() as tx:
        return {"authorization": f"Bearer {tokens.issue(tx, 'schema', 'admin', hub.now())}"}


def _violable(operation: dict[str, Any]) -> bool:
    """Whether a request can differ from what the document says: by a body, or by a parameter that is more than any text."""
    schemas = [one["schema"] for one in operation.get("parameters", [])]
    kinds = operation.get("requestBody", {}).get("content", {})
    return bool(kinds.get("application/json", {}).get("schema")) or any(set(one) - {"type", "title"} for one in schemas)


DOCUMENT = make_app(cast(Hub, None)).openapi()
ROWS = [
    (mode, method, PREFIX + path)
    for mode in CHECKED
    for method, path, operation in reference.operations(DOCUMENT)
    if mode == GenerationMode.POSITIVE or _violable(cast(dict[str, Any], operation))
]


@pytest.mark.parametrize(("mode", "method", "path"), ROWS, ids=[f"{mode.value} {method} {path}" for mode, method, path in ROWS])
def test_the_document_says_what_happens(furnished: Path, tmp_path: Path, mode: GenerationMode, method: str, path: str) -> None:
    """One operation, asked as an admin in many ways: each answer is one the document describes."""
    hub = open_hub(shutil.copytree(furnished, tmp_path / "m"), Clock())
    with hub.store.write() as tx:
        rows.drop(tx, table, name="schema")
    bearer, app = _bearer(hub), make_app(hub)
    client = TestClient(app, "https://test", raise_server_exceptions=False)
    schema = schemathesis.openapi.from_dict(app.openapi())
    # Who may is test_matrix's to ask; here everybody may.
    schema.config.generation.update(with_security_parameters=False)
    # Without a broker there is nowhere a browser could be let in, and the answer says so.
    checks = CHECKS.get_by_names([name for name in CHECKED[mode] if name != "not_a_server_error" or path != f"{PREFIX}/credential"])

    @BOUNDED
    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        words = case.as_transport_kwargs(base_url="https://test")
        answer = client.request(**{**words, "headers": {**words.get("headers", {}), **bearer}, "cookies": None})
        case.validate_response(answer, checks=checks)
        assert answer.status_code < 500 or answer.json()["reason"] == "no-broker"

    ask()
    hub.close()
