"""JSON documents held to their schemas."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator


def check_schema(document: Any, schema: dict[str, Any]) -> None:
    """Check a document, and that its objects have neither more nor fewer members than described."""
    Draft202012Validator.check_schema(schema)
    for part in _objects(schema):
        assert part["additionalProperties"] is False
        assert set(part["required"]) == part["properties"].keys()
    Draft202012Validator(schema).validate(document)


def _objects(schema: Any) -> list[dict[str, Any]]:
    """Return all parts of a schema that describe objects."""
    if isinstance(schema, list):
        return [found for part in schema for found in _objects(part)]
    if not isinstance(schema, dict):
        return []
    inner = [found for part in schema.values() for found in _objects(part)]
    return [schema, *inner] if isinstance(schema.get("properties"), dict) else inner
