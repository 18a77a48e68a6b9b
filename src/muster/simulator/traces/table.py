"""A CSV file as rows of a model: a bad cell is told with its line, its column and what was expected there."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from muster.simulator.yaml_errors import BadInput, Problem, expected

R = TypeVar("R", bound=BaseModel)


def read_table(path: Path, row: type[R]) -> list[R]:
    """Return the rows of a CSV file with a header; columns that `row` does not name are passed over. Raise BadInput."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(_rows(path, csv.reader(file), row))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(path, [Problem(None, "", f"cannot be read: {error}")]) from None


def bad_row(path: Path, index: int, column: str, message: str) -> BadInput:
    """Return the complaint about a column of the row `index`, counted from 0 as `read_table` returns them."""
    return BadInput(path, [Problem(index + 2, column, message)])


def _rows(path: Path, reader: Iterator[list[str]], row: type[R]) -> Iterator[R]:
    header = next(reader, [])
    wanted = [field.alias or name for name, field in row.model_fields.items()]
    if missing := [name for name in wanted if name not in header]:
        found = ", ".join(header) or "nothing"
        raise BadInput(path, [Problem(1, missing[0], f"there is no such column; expected {', '.join(wanted)}, found {found}")])
    table = list(reader)
    while table and not table[-1]:
        table.pop()  # empty lines at the end; elsewhere they are no rows
    for line, cells in enumerate(table, 2):
        if len(cells) != len(header):
            raise BadInput(path, [Problem(line, "", f"has {len(cells)} cells; expected {len(header)}, as the header has")])
        try:
            yield row.model_validate(dict(zip(header, cells, strict=True)))
        except ValidationError as error:
            raise BadInput(path, [Problem(line, str(e["loc"][0]), expected(e)) for e in error.errors()]) from None
