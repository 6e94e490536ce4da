"""docs/api.md from the OpenAPI document itself: `python -m edgeops.api.reference > docs/api.md`."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any, cast

from edgeops.manager.hub import Hub

from . import door, problems
from .app import make_app
from .door import PREFIX

MEMBERS = "".join(f"| `{name}` | {field.description} |\n" for name, field in problems.Problem.model_fields.items())
HEAD = f"""# The HTTP API

Written by `python -m edgeops.api.reference > docs/api.md`; a test fails when it is out of date.

All paths begin with `{PREFIX}`. The running manager serves the same as OpenAPI at `{PREFIX}/openapi.json`. Every operation
but those marked *open* needs `Authorization: Bearer TOKEN`; roles are viewer < operator < admin (`edgeops token new`). A request
body has at most {door.MOST_BYTES} bytes, {door.MOST_FROM_STRANGERS} where the operation is open; an uploaded object at most
`max_object_bytes` of [the settings](settings.md).

Errors are problem documents (RFC 9457, `{problems.MEDIA}`):

| member | means |
|---|---|
{MEMBERS}
| kind | status, unless the reason has its own |
|---|---|
"""
METHODS = ("get", "head", "post", "put", "patch", "delete")


def document() -> str:
    """The whole page as markdown."""
    found = make_app(cast(Hub, None)).openapi()
    kinds = "".join(f"| {kind} | {status} {title} |\n" for _, kind, status, title in problems.KINDS)
    rows = "".join(f"| {status} | {', '.join(reasons)} |\n" for status, reasons in _by_status().items())
    parts = [HEAD, kinds, "\n| status | reasons |\n|---|---|\n", rows]
    schemas = found["components"]["schemas"]
    return "".join([*parts, *(_section(*one, schemas) for one in operations(found))])


def operations(found: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(method, path, operation) of an OpenAPI document, paths without the prefix."""
    for path, verbs in found["paths"].items():
        for method in METHODS:
            if method in verbs:
                yield method.upper(), path.removeprefix(PREFIX), verbs[method]


def _by_status() -> dict[int, list[str]]:
    fixed = {**problems.STATUS, "validation": 422, "not-found": 404, "method-not-allowed": 405, "bad-request": 400, "internal": 500}
    return {status: sorted(name for name, code in fixed.items() if code == status) for status in sorted(set(fixed.values()))}


def _section(method: str, path: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    roles = [role for needed in operation.get("security", []) for scopes in needed.values() for role in scopes]
    done = next(code for code in operation["responses"] if code.startswith("2"))
    told = " ".join(operation["description"].split())
    lines = [f"\n## {method} {path}\n", f"{told} {f'Needs {roles[0]}.' if roles else '*Open.*'} Answers {done}."]
    rows = [_row(one["name"], one["schema"], one.get("required", False), one["in"]) for one in operation.get("parameters", [])]
    body = operation.get("requestBody", {})
    for kind, content in body.get("content", {}).items():
        schema = _schema(content.get("schema", {}), schemas)
        lines[-1] += f"\n\nBody: {body.get('description') or schema.get('description') or kind}"
        rows += [_row(name, _schema(of, schemas), name in schema.get("required", []), "body") for name, of in _fields(schema)]
    if rows:
        lines += ["", "| name | in | type | meaning |", "|---|---|---|---|", *rows]
    return "\n".join(lines) + "\n"


def _fields(schema: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return list(schema.get("properties", {}).items())


def _schema(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    """`schema` itself, or what it refers to."""
    name = str(schema.get("$ref", "")).rsplit("/", 1)[-1]
    return cast(Mapping[str, Any], schemas[name]) if name else schema


def _row(name: str, schema: Mapping[str, Any], required: bool, where: str) -> str:
    default = schema.get("default")
    told = "required" if required else "" if default in (None, {}, "") else f"default `{default}`"
    bounds = _bounds(schema)
    return f"| `{name}` | {where} | {_type(schema)} | {', '.join(filter(None, (told, bounds))) or 'optional'} |"


def _bounds(schema: Mapping[str, Any]) -> str:
    whole = next((one for one in schema.get("anyOf", []) if one.get("type") == "integer"), schema)
    low, high = whole.get("minimum"), whole.get("maximum")
    if low is not None or high is not None:
        return f"{int(low or 0)} to {int(high)}" if high is not None else f"from {int(low or 0)}"
    return f"at most {schema['maxLength']} characters" if "maxLength" in schema else ""


def _type(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(one) for one in schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(f"`{one}`" for one in schema["enum"])
    inner = schema.get("additionalProperties")
    if schema.get("type") == "object" and isinstance(inner, dict):
        return f"object of {_type(inner)}"
    return str(schema.get("type", "any"))


if __name__ == "__main__":
    sys.stdout.write(document())
