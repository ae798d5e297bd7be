"""JSON documents held to their schemas, by as much of JSON Schema as ours are written in."""

from __future__ import annotations

from typing import Any


def check_schema(document: Any, schema: dict[str, Any]) -> None:
    """Check a document, and that its objects have neither more nor fewer members than described."""
    _check(document, schema, schema.get("$defs", {}))


def _check(value: Any, schema: dict[str, Any], defs: dict[str, Any]) -> None:
    if "$ref" in schema:
        schema = defs[schema["$ref"].removeprefix("#/$defs/")]
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "boolean": bool,
    }
    kinds["number"] = int | float
    allowed = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if value is None:
        assert "null" in allowed
        return
    assert any(isinstance(value, kinds[kind]) for kind in allowed if kind != "null"), value
    if isinstance(value, dict):
        assert value.keys() == schema["properties"].keys() == set(schema["required"])
        assert schema["additionalProperties"] is False
        for name, part in value.items():
            _check(part, schema["properties"][name], defs)
    if isinstance(value, list):
        for item in value:
            _check(item, schema["items"], defs)
