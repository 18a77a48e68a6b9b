"""Parser and printer for the table of `nvidia-smi topo -m`.

Drivers differ in separators, NIC rows, NUMA columns and legend; the parser reads the common part. Invariant: links between
GPUs are symmetric, X only on the diagonal, in the notation of `muster.scheduling.topology.links.canonical`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from muster.scheduling.topology.links import BadLinks, canonical

_TITLES = ("CPU Affinity", "NUMA Affinity", "GPU NUMA ID")
_UNKNOWN = ("N/A", "")
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")  # nvidia-smi underlines the header on a terminal
_GPU = re.compile(r"GPU\d+$")


class BadTopo(ValueError):
    """An invalid table of `nvidia-smi topo -m`; the message names the line, the cell and the expected content."""


@dataclass(frozen=True)
class Topo:
    """A printed table: `links[i][j]` between GPUs, `nics[name][i]` from a NIC to GPU i, affinities as printed."""

    links: tuple[tuple[str, ...], ...]
    nics: dict[str, tuple[str, ...]] = field(default_factory=dict)
    cpu_affinity: tuple[str | None, ...] = ()
    numa: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class _Row:
    line: int
    cells: list[str]


def parse_topo(text: str) -> Topo:
    """Parse the output of `nvidia-smi topo -m`, ignoring the legend and lines that start with #; raise BadTopo."""
    lines = [(n, _ESCAPES.sub("", line)) for n, line in enumerate(text.splitlines(), 1)]
    table = [(n, line) for n, line in _before_legend(lines) if line.strip() and not line.startswith("#")]
    if not table:
        raise BadTopo("no table found; expected the output of nvidia-smi topo -m")
    devices, titles = _header(*table[0])
    rows = _rows(table[1:])
    gpus = [name for name in devices if _GPU.match(name)]
    if missing := [name for name in gpus if name not in rows]:
        raise BadTopo(f"row {missing[0]} is missing; the header in line {table[0][0]} names {len(gpus)} GPUs")
    if unknown := [name for name in rows if name not in devices]:
        raise BadTopo(f"line {rows[unknown[0]].line}: row {unknown[0]} has no column of that name in the header")
    grid = {name: _links(name, rows[name], devices, len(titles)) for name in gpus}
    _check_symmetry(gpus, grid, rows)
    cpu, numa = (_affinity(title, titles, [rows[g].cells[len(devices) :] for g in gpus]) for title in _TITLES[:2])
    nics = {name: tuple(grid[gpu][name] for gpu in gpus) for name in devices if name not in gpus}
    return Topo(tuple(tuple(grid[a][b] for b in gpus) for a in gpus), nics, cpu, numa)


def render_topo(topo: Topo) -> str:
    """Return the GPU rows of the table, tab-separated like nvidia-smi; `parse_topo` reads it back."""
    gpus = [f"GPU{i}" for i in range(len(topo.links))]
    lines = ["\t".join(["", *gpus, *topo.nics, *_TITLES[:2]])]
    for i, row in enumerate(topo.links):
        cells = [" X " if cell == "X" else cell for cell in row] + [links[i] for links in topo.nics.values()]
        affinities = [column[i] if i < len(column) else None for column in (topo.cpu_affinity, topo.numa)]
        lines.append("\t".join([gpus[i], *cells, *(value or "N/A" for value in affinities)]))
    return "\n".join(lines) + "\n"


def _before_legend(lines: list[tuple[int, str]]) -> list[tuple[int, str]]:
    ends = [i for i, (_, line) in enumerate(lines) if line.strip() == "Legend:"]
    return lines[: ends[0]] if ends else lines


def _header(number: int, line: str) -> tuple[list[str], list[str]]:
    titles = [title for title in _TITLES if title in line]
    for title in titles:
        line = line.replace(title, " ")
    devices = line.split()
    if not any(_GPU.match(name) for name in devices):
        raise BadTopo(f"line {number}: no header; expected columns GPU0, GPU1, ..., found {line.strip()[:40]!r}")
    if len(set(devices)) < len(devices):
        raise BadTopo(f"line {number}: the header names a device twice")
    return devices, titles


def _rows(lines: list[tuple[int, str]]) -> dict[str, _Row]:
    rows: dict[str, _Row] = {}
    for number, line in lines:
        name, *cells = line.split()
        if name in rows:
            raise BadTopo(f"line {number}: duplicate row {name}; the first is in line {rows[name].line}")
        rows[name] = _Row(number, cells)
    return rows


def _links(name: str, row: _Row, devices: list[str], titles: int) -> dict[str, str]:
    if not len(devices) <= len(row.cells) <= len(devices) + titles:
        raise BadTopo(
            f"line {row.line}: row {name} has {len(row.cells)} cells; "
            f"expected {len(devices)} links and at most {titles} affinities"
        )
    return {column: _link(name, column, cell, row.line) for column, cell in zip(devices, row.cells, strict=False)}


def _link(row: str, column: str, cell: str, line: int) -> str:
    where = f"line {line}, row {row}, column {column}"
    try:
        link = canonical(cell)
    except BadLinks as error:
        raise BadTopo(f"{where}: {error}") from None
    if (link == "X") != (row == column):
        raise BadTopo(f"{where}: found {cell}; expected X exactly where row and column are the same device")
    return link


def _check_symmetry(gpus: list[str], grid: dict[str, dict[str, str]], rows: dict[str, _Row]) -> None:
    for a in gpus:
        for b in gpus:
            if grid[a][b] != grid[b][a]:
                raise BadTopo(
                    f"line {rows[a].line}, row {a}, column {b}: found {grid[a][b]}, but row {b}, column {a} "
                    f"has {grid[b][a]}; expected the same link in both directions"
                )


def _affinity(title: str, titles: list[str], rows: list[list[str]]) -> tuple[str | None, ...]:
    index = titles.index(title) if title in titles else len(_TITLES)
    column = [cells[index] if index < len(cells) else "" for cells in rows]
    return tuple(None if cell in _UNKNOWN else cell for cell in column)
