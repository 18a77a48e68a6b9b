"""CSV files as rows of a pydantic model; an error names the line, the column and the expected value."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from muster.simulator.yaml_errors import BadInput, Problem, expected

R = TypeVar("R", bound=BaseModel)


def read_table(path: Path, row: type[R]) -> list[R]:
    """Return the rows of a CSV file with a header, ignoring columns unknown to `row`; raise BadInput."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(_rows(path, csv.reader(file), row))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(path, [Problem(None, "", f"cannot be read: {error}")]) from None


def bad_row(path: Path, index: int, column: str, message: str) -> BadInput:
    """Return the error for a column of row `index`, counted from 0 in the result of `read_table`."""
    return BadInput(path, [Problem(index + 2, column, message)])


def _rows(path: Path, reader: Iterator[list[str]], row: type[R]) -> Iterator[R]:
    header = next(reader, [])
    required = [field.alias or name for name, field in row.model_fields.items()]
    if missing := [name for name in required if name not in header]:
        expected_columns, columns = ", ".join(required), ", ".join(header) or "nothing"
        message = f"there is no such column; expected {expected_columns}, found {columns}"
        raise BadInput(path, [Problem(1, missing[0], message)])
    table = list(reader)
    while table and not table[-1]:
        table.pop()  # empty lines are allowed at the end only
    for line, cells in enumerate(table, 2):
        if len(cells) != len(header):
            raise BadInput(path, [Problem(line, "", f"has {len(cells)} cells; expected {len(header)} as in the header")])
        try:
            yield row.model_validate(dict(zip(header, cells, strict=True)))
        except ValidationError as error:
            raise BadInput(path, [Problem(line, str(e["loc"][0]), expected(e)) for e in error.errors()]) from None
