"""The schema converter: structural schemas, and errors for unsupported keywords."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from muster.api.base import Open, Strict, extra, rule
from muster.api.schema import structural


class Inner(Strict):
    """An inner
    object."""

    size_limit: Annotated[int, Field(ge=1, le=5)] = 2


class Outer(Strict):
    inner: Inner = Inner()
    again: Inner | None = None
    """Its own words."""
    kind: Literal["Only"] = "Only"
    names: dict[str, str] | None = None
    many: Annotated[list[Inner], Field(max_length=3, json_schema_extra=extra(list_type="atomic"))]


INNER = {
    "type": "object",
    "properties": {"sizeLimit": {"type": "integer", "minimum": 1, "maximum": 5, "default": 2}},
}


def test_references_are_inlined_and_optional_fields_are_plain() -> None:
    assert structural(Outer) == {
        "type": "object",
        "required": ["many"],
        "properties": {
            "inner": INNER | {"description": "An inner object.", "default": {}},
            "again": INNER | {"description": "Its own words."},
            "kind": {"type": "string", "enum": ["Only"], "default": "Only"},
            "names": {"type": "object", "additionalProperties": {"type": "string"}},
            "many": {
                "type": "array",
                "maxItems": 3,
                "items": INNER | {"description": "An inner object."},
                "x-kubernetes-list-type": "atomic",
            },
        },
    }


def test_open_objects_keep_unknown_fields() -> None:
    class Anything(Open):
        pass

    assert structural(Anything)["x-kubernetes-preserve-unknown-fields"] is True


def test_cel_rules_are_kept() -> None:
    expected = rule("self.a > 0", "a must be positive", at=".a")

    class Ruled(Strict):
        model_config = ConfigDict(json_schema_extra=extra(expected))
        a: int

    assert structural(Ruled)["x-kubernetes-validations"] == [
        {"rule": "self.a > 0", "message": "a must be positive", "fieldPath": ".a"}
    ]


@pytest.mark.parametrize("annotation", [Annotated[int, Field(gt=0)], int | str, Annotated[int, Field(multiple_of=2)]])
def test_unsupported_keyword_raises(annotation: Any) -> None:
    class Wrong(BaseModel):
        field: annotation

    with pytest.raises(ValueError, match="a structural schema has"):
        structural(Wrong)
