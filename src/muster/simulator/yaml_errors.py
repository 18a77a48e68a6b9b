"""Input errors that name the file, the line, the field, the value found and the value expected.

They serve scenarios (YAML) and traces (CSV). An error lists all mistakes of a file at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

FieldPath = tuple[int | str, ...]
"""The path to a field from the top of a document: ("cluster", "groups", 0, "count")."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a file; `line` counts from 1, None if it concerns no line."""

    line: int | None
    field: str
    message: str


class BadInput(ValueError):
    """An unusable file; the message has one line for each mistake."""

    def __init__(self, file: Path | str, problems: Iterable[Problem]) -> None:
        self.file, self.problems = str(file), tuple(problems)
        super().__init__("\n".join(_sentence(self.file, problem) for problem in self.problems))


class Strict(BaseModel):
    """A model that rejects unknown fields; the message lists the valid ones."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _reject_unknown(cls, data: Any) -> Any:
        unknown = [key for key in data if key not in cls.model_fields] if isinstance(data, Mapping) else []
        if unknown:
            raise complaint(
                "there is no such field; expected one of {names}", str(unknown[0]), names=", ".join(cls.model_fields)
            )
        return data


def complaint(message: str, key: str = "", **details: object) -> PydanticCustomError:
    """Return a validation error about the field `key` of the value; {placeholders} in the message take `details`."""
    return PydanticCustomError("complaint", message, {"key": key, **details})


M = TypeVar("M", bound=BaseModel)


def read_yaml(path: Path, model: type[M]) -> M:
    """Read a YAML file as a model; raise BadInput."""
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        lines = dict(_lines(node, (), set())) if node else {}
        data = loader.construct_document(node) if node else None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(path, [Problem(None, "", f"cannot be read: {error}")]) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise BadInput(path, [Problem(line, "", f"is not YAML: {error.problem}")]) from None
    except yaml.YAMLError as error:
        raise BadInput(path, [Problem(None, "", f"is not YAML: {error}")]) from None
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise BadInput(path, [_problem(details, lines) for details in error.errors()]) from None


def _lines(node: yaml.Node, where: FieldPath, seen: set[int]) -> Iterator[tuple[FieldPath, int]]:
    """The line of each field; a field repeated by an alias has the line of its anchor."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*where, str(key.value))
            yield here, key.start_mark.line + 1
            yield from _lines(value, here, seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*where, index), value.start_mark.line + 1
            yield from _lines(value, (*where, index), seen)


def _problem(details: ErrorDetails, lines: Mapping[FieldPath, int]) -> Problem:
    key = details.get("ctx", {}).get("key") if details["type"] == "complaint" else None
    where = (*details["loc"], key) if key else details["loc"]
    line = next((lines[where[:size]] for size in range(len(where), 0, -1) if where[:size] in lines), 1)
    return Problem(line, _path(where), expected(details))


def expected(details: ErrorDetails) -> str:
    """Return pydantic's message in the form "found ...; expected ..."."""
    if details["type"] == "missing":
        return "is missing"
    if details["type"] == "complaint":
        return details["msg"]
    words = details["msg"].removeprefix("Value error, ").replace("Input should be", "expected", 1)
    value = details["input"]
    shown = "nothing" if value is None else repr(value) if isinstance(value, str | int | float) else type(value).__name__
    return f"found {shown}; {words}"


def _path(where: FieldPath) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where)
    return text.removeprefix(".")


def _sentence(file: str, problem: Problem) -> str:
    where = [file, f"line {problem.line}" if problem.line is not None else "", problem.field]
    return f"{', '.join(part for part in where if part)}: {problem.message}"
