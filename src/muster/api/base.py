"""Base classes of muster's resource models, and CEL validation rules.

A model is the single source of a resource: crds/ and docs/reference/ are generated from it, and the operator parses objects
with it. Field names are snake_case here and camelCase on the wire; attribute docstrings become descriptions.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

RULES = "x-kubernetes-validations"


class Model(BaseModel):
    """Base of every part of a resource."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True)


class Strict(Model):
    """A part that users write: an unknown field is an error, as in the API server with fieldValidation=Strict."""

    model_config = ConfigDict(extra="forbid")


class Open(Model):
    """A part defined by Kubernetes: undeclared fields are preserved and validated by the API server."""

    model_config = ConfigDict(extra="allow")


class Reported(Model):
    """A part that muster writes: fields of newer versions are ignored."""

    model_config = ConfigDict(extra="ignore")


def rule(expression: str, message: str, found: str | None = None, at: str | None = None) -> dict[str, str]:
    """Return a CEL rule; `message` says what is expected and becomes its documentation.

    `found` is a CEL expression for a message with the value found. It may use only strings with a maxLength: the API server
    assumes unbounded length otherwise and rejects the rule for its estimated cost.
    `at` is the path of the field in error, relative to the object with the rule.
    """
    optional = {"messageExpression": found, "fieldPath": at}
    return {"rule": expression, "message": message} | {key: value for key, value in optional.items() if value}


def immutable(what: str) -> dict[str, str]:
    """Return the rule that a value is immutable after creation."""
    return rule("self == oldSelf", f"{what} cannot change: delete the job and create it again")


def extra(*rules: dict[str, str], **fields: Any) -> dict[str, Any]:
    """Return a `json_schema_extra` of x-kubernetes-* fields (underscores for hyphens) and CEL rules."""
    named = {f"x-kubernetes-{name.replace('_', '-')}": value for name, value in fields.items()}
    return named | ({RULES: list(rules)} if rules else {})
