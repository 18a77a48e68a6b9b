"""What all of muster's resource models share, and how a CEL rule is attached to one.

A model is the one source of a resource: crds/ and docs/reference/ are generated from it, and the operator reads objects
with it. Field names are snake_case here and camelCase on the wire; attribute docstrings become descriptions.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

RULES = "x-kubernetes-validations"


class Model(BaseModel):
    """What every part of a resource has in common."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True)


class Strict(Model):
    """A part that a user writes: an unknown field is an error, here as in the API server (fieldValidation=Strict)."""

    model_config = ConfigDict(extra="forbid")


class Open(Model):
    """A part that is Kubernetes' own: what is not declared here is kept as it is, and left to the API server."""

    model_config = ConfigDict(extra="allow")


class Reported(Model):
    """A part that muster writes: a field of a newer version is no reason not to read the rest."""

    model_config = ConfigDict(extra="ignore")


def rule(expression: str, message: str, found: str | None = None, at: str | None = None) -> dict[str, str]:
    """Return a CEL rule with the sentence that says what is expected, which is also its documentation.

    `found` is a CEL expression for the sentence that says what was found instead (of strings with a maxLength only: the
    API server takes any other text for endless and refuses the rule as too dear);
    `at` is the field, relative to the object that holds the rule, to which the API server ascribes the error.
    """
    optional = {"messageExpression": found, "fieldPath": at}
    return {"rule": expression, "message": message} | {key: value for key, value in optional.items() if value}


def immutable(what: str) -> dict[str, str]:
    """Return the rule that a value cannot change after creation."""
    return rule("self == oldSelf", f"{what} cannot change: delete the job and create it again")


def extra(*rules: dict[str, str], **fields: Any) -> dict[str, Any]:
    """Return a `json_schema_extra` of x-kubernetes-* fields (underscores for hyphens) and CEL rules."""
    named = {f"x-kubernetes-{name.replace('_', '-')}": value for name, value in fields.items()}
    return named | ({RULES: list(rules)} if rules else {})
