"""The result of a simulation as short tables."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from muster.simulator.report import Figures

WIDE = 400
"""Columns of tables that are not written to a terminal."""


def text(tables: Iterable[Table], *, terminal: bool) -> str:
    """Return tables as text: with colours and as wide as the terminal, or plain and wide."""
    console = Console(highlight=False, markup=False, emoji=False, force_terminal=terminal, width=None if terminal else WIDE)
    with console.capture() as captured:
        for table in tables:
            console.print(table)
    return captured.get()


def tables(figures: Figures) -> list[Table]:
    """Return the tables of a report: the summary, and the rows of jobs if it has any."""
    table = Table("figure", "mean", "median", "p99", box=None, pad_edge=False)
    for name, title in (("jct", "job completion time"), ("queueing", "wait until the first start")):
        spread = figures[name]
        table.add_row(title, *(duration(spread[part]) for part in ("mean", "median", "p99")))
    table.add_row("makespan", duration(figures["makespan"]))
    for name in ("allocation", "utilisation"):
        table.add_row(f"GPU {name}", _percent(figures[name]["mean"]))
    table.add_row("fragmentation", _percent(figures["fragmentation"]))
    return [table, _counts(figures), *([_rows(figures["rows"])] if "rows" in figures else [])]


def _counts(figures: Figures) -> Table:
    jobs = figures["jobs"]
    counts = Table.grid()
    counts.add_row(f"{jobs['finished']} of {jobs['arrived']} jobs finished")
    counts.add_row(f"{figures['queueing']['over_15_min']} waited over 15 min")
    counts.add_row(f"{figures['migrations']} migrations, {figures['suspensions']} suspensions")
    return counts


def _rows(rows: list[Figures]) -> Table:
    table = Table("job", "GPUs", "arrival", "waited", "JCT", "suspensions", "migrations", box=None, pad_edge=False)
    for row in rows:
        times = [duration(row[name]) for name in ("arrival", "queued", "jct")]
        table.add_row(row["name"], str(row["gpus"]), *times, str(row["suspensions"]), str(row["migrations"]))
    return table


def decided(decisions: list[Figures]) -> Table:
    """Return a table with a row for each decision."""
    table = Table("gang", "decision", "reason", "why", box=None, pad_edge=False)
    for decision in decisions:
        table.add_row(decision["gang"], decision["decision"], decision["reason"], decision["message"])
    return table


def duration(seconds: float | None) -> str:
    """Return a duration in a readable unit, "-" for None."""
    if seconds is None:
        return "-"
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
