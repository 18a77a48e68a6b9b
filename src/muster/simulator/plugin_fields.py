"""Scenario fields derived from builders: a scenario may set whatever the named builder accepts.

A builder is a class or function. Its annotated parameters become pydantic fields with its defaults. A parameter that is a
dataclass of settings contributes the fields of that dataclass (floats at least 0), except those marked `Fixed` in the registry.
Parameters that only the run can supply (`RUN_PARAMETERS`) are not fields. A new trace, physics or policy therefore needs one
line in the registry and nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, Field, PlainValidator, create_model

from muster.simulator.yaml_errors import Strict, complaint

RUN_PARAMETERS = ("seed", "oracle", "folder")
"""Parameters supplied by the run: the scenario's seed, the oracle of job lengths, the folder of relative paths."""
Builder = Callable[..., Any]
Amount = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class Fixed:
    """Annotation of a settings parameter: the fields that a scenario may not set."""

    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Choice:
    """A registry entry with the settings of a scenario."""

    name: str
    builder: Builder
    settings: BaseModel

    def build(self, **run_values: object) -> Any:
        """Call the builder with the scenario's settings and the run's parameters; paths are relative to `folder`."""
        values = {name: getattr(self.settings, name) for name in self.settings.model_fields_set}
        folder = run_values.get("folder")
        if isinstance(folder, Path):
            values = {name: folder / value if isinstance(value, Path) else value for name, value in values.items()}
        arguments: dict[str, object] = {}
        for name, kind in parameters(self.builder).items():
            group = _dataclass(kind)
            if name in RUN_PARAMETERS:
                arguments[name] = run_values[name]
            elif group is not None:
                arguments[name] = group(**{f.name: values[f.name] for f in fields(group) if f.name in values})
            elif name in values:
                arguments[name] = values[name]
        return self.builder(**arguments)


def one_of(table: Mapping[str, Builder], tag: str) -> PlainValidator:
    """Return the validator of a field that is a name in `table`, or a mapping with that name as `tag` and settings."""

    def choose(value: Any) -> Choice:
        if isinstance(value, str):
            value = {tag: value}
        if not isinstance(value, Mapping):
            raise complaint("expected one of {names}, or a mapping with it as {tag}", names=", ".join(table), tag=tag)
        name = str(value.get(tag))
        if name not in table:
            raise complaint("found {found}; expected one of {names}", tag, found=repr(name), names=", ".join(table))
        model = settings_model(table[name])
        return Choice(name, table[name], model.model_validate({key: item for key, item in value.items() if key != tag}))

    return PlainValidator(choose)


@cache
def settings_model(builder: Builder) -> type[BaseModel]:
    """Return the model of a builder's settings."""
    settings: dict[str, Any] = {}
    defaults = inspect.signature(builder).parameters
    for name, kind in parameters(builder).items():
        group = _dataclass(kind)
        if name in RUN_PARAMETERS:
            continue
        if group is not None:
            settings |= _fields(group, _fixed(kind))
        else:
            default = defaults[name].default
            settings[name] = (kind, ... if default is inspect.Parameter.empty else default)
    return create_model(f"{getattr(builder, '__name__', 'Builder')}Settings", __base__=Strict, **settings)


@cache
def parameters(builder: Builder) -> dict[str, Any]:
    """Return the types of a builder's parameters by name."""
    function = builder.__init__ if inspect.isclass(builder) else builder
    hints = get_type_hints(function, include_extras=True)
    return {name: hints[name] for name in inspect.signature(builder).parameters}


def _fields(group: type[Any], fixed: frozenset[str]) -> dict[str, Any]:
    hints, defaults = get_type_hints(group, include_extras=True), group()
    types = {f.name: hints[f.name] for f in fields(group) if f.name not in fixed}
    return {name: (Amount if kind is float else kind, getattr(defaults, name)) for name, kind in types.items()}


def _fixed(kind: Any) -> frozenset[str]:
    return next((mark.names for mark in getattr(kind, "__metadata__", ()) if isinstance(mark, Fixed)), frozenset())


def _dataclass(kind: Any) -> type[Any] | None:
    """The dataclass among the types that a parameter accepts."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    options = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    return next((option for option in options if inspect.isclass(option) and is_dataclass(option)), None)
