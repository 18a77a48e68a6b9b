"""Conversion of pydantic models to the structural schemas of CustomResourceDefinitions.

Kubernetes accepts a subset of OpenAPI 3.0: no `$ref`, `const` or `title`, and one type for each value. Optional fields may be
absent: the API server drops nulls before it applies defaults, so `nullable` is never needed. Any other keyword that pydantic
may emit and Kubernetes would reject raises an error here, at generation time, not on a user's cluster.
"""

import inspect
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]
DROPPED = {"title", "$defs", "additionalProperties", "const", "anyOf", "$ref"}
KEPT = {
    *("type", "format", "description", "default", "enum", "pattern", "required", "properties", "items"),
    *("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"),
}


def structural(model: type[BaseModel]) -> Schema:
    """Return the structural schema of a model."""
    schema = model.model_json_schema(by_alias=True)
    return convert(schema, schema.get("$defs", {}))


def convert(node: Schema, defs: dict[str, Schema]) -> Schema:
    """Return one node of a JSON schema as a structural schema; raise ValueError for an unsupported keyword."""
    node = flatten(node, defs)
    unsupported = {key for key in node if key not in KEPT | DROPPED and not key.startswith("x-kubernetes-")}
    if unsupported:
        raise ValueError(f"a structural schema has no {sorted(unsupported)}: {node}")
    result = {key: value for key, value in node.items() if key not in DROPPED}
    if "const" in node:
        result["enum"] = [node["const"]]
    match result.get("default"):
        case None:
            result.pop("default", None)
        case dict():
            result["default"] = {}  # the API server fills in the nested defaults
    if "description" in result:
        result["description"] = " ".join(inspect.cleandoc(result["description"]).split())
    return result | children(node, defs)


def flatten(node: Schema, defs: dict[str, Schema]) -> Schema:
    """Resolve `$ref`, and `anyOf` with null; outer keywords override inner ones."""
    while "$ref" in node or "anyOf" in node:
        if "$ref" in node:
            inner = defs[node["$ref"].removeprefix("#/$defs/")]
        else:
            inner, *rest = (choice for choice in node["anyOf"] if choice.get("type") != "null")
            if rest:
                raise ValueError(f"a structural schema has one type for each value: {node}")
        node = inner | {key: value for key, value in node.items() if key not in ("$ref", "anyOf")}
    return node


def children(node: Schema, defs: dict[str, Schema]) -> Schema:
    """Return the converted nested schemas of a node."""
    result: Schema = {}
    if "properties" in node:
        result["properties"] = {name: convert(child, defs) for name, child in node["properties"].items()}
    if "items" in node:
        result["items"] = convert(node["items"], defs)
    match node.get("additionalProperties"):
        case True:
            result["x-kubernetes-preserve-unknown-fields"] = True
        case dict() as child:
            result["additionalProperties"] = convert(child, defs)
    return result
