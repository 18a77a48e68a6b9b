"""The result of a run as one JSON object: metrics of the jobs and the GPUs, and counts of the decisions by reason.

It contains no wall-clock time, so the same scenario gives the same bytes. Times are in seconds, fractions from 0 to 1; a metric
without data is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from muster.simulator.records import Gauge, Records, Row

LONG_WAIT = 900.0
"""Seconds in the queue above which a wait counts as long: the 15 minutes of FfDL (Middleware'19)."""
Figures = dict[str, Any]


def report(records: Records, window: tuple[float, float] | None = None, *, jobs: bool = False) -> Figures:
    """Return the metrics of a closed run; `window` is a start and an end in seconds, `jobs` adds a row for each job."""
    rows = list(records.rows.values())
    window = window or _while_jobs_arrive(rows)
    figures = {
        "gpus": records.gpus,
        "jobs": _counts(rows),
        "jct": _spread([row.jct for row in rows if row.jct is not None]),
        "queueing": _queueing(rows, records.end),
        "makespan": _rounded(records.end),
        "allocation": _gpu_fractions(records.held, records, window),
        "utilisation": _gpu_fractions(records.active, records, window),
        "fragmentation": _rounded(records.fragmentation.mean(records.end)),
        "window": [_rounded(time) for time in window],
        "migrations": sum(row.migrations for row in rows),
        "suspensions": sum(row.suspensions for row in rows),
        "overhead": _overhead(rows),
        "decisions": _decisions(records),
    }
    return figures | ({"rows": [_row(row) for row in rows]} if jobs else {})


def _counts(rows: Sequence[Row]) -> Figures:
    finished = sum(row.finished is not None for row in rows)
    cancelled = sum(row.ended is not None for row in rows) - finished
    started = sum(row.started is not None for row in rows)
    return {"arrived": len(rows), "started": started, "finished": finished, "cancelled": cancelled}


def _queueing(rows: Sequence[Row], end: float) -> Figures:
    """Waits from submission to the first start, or to the end of the job or the run without one."""
    waits = [row.queued if row.queued is not None else (end if row.ended is None else row.ended) - row.arrival for row in rows]
    return _spread(waits) | {"over_15_min": sum(wait > LONG_WAIT for wait in waits), "share_over_15_min": _long_fraction(waits)}


def _long_fraction(waits: Sequence[float]) -> float | None:
    return _rounded(sum(wait > LONG_WAIT for wait in waits) / len(waits)) if waits else None


def _spread(values: Sequence[float]) -> Figures:
    if not values:
        return {"mean": None, "median": None, "p99": None}
    median, late = np.quantile(values, (0.5, 0.99))
    return {"mean": _rounded(float(np.mean(values))), "median": _rounded(float(median)), "p99": _rounded(float(late))}


def _gpu_fractions(gauge: Gauge, records: Records, window: tuple[float, float]) -> Figures:
    """The mean of a gauge as a fraction of all GPUs, over the whole run and over the window."""
    whole, inside = _mean(gauge, 0.0, records.end), _mean(gauge, *window)
    gpus = max(records.gpus, 1)
    return {name: None if mean is None else _rounded(mean / gpus) for name, mean in (("mean", whole), ("window", inside))}


def _mean(gauge: Gauge, start: float, end: float) -> float | None:
    return _rounded(gauge.between(start, end)) if end > start else None


def _overhead(rows: Sequence[Row]) -> Figures:
    """Seconds without progress after starts, resumes and moves."""
    total = sum(row.overhead for row in rows)
    return {"seconds": _rounded(total), "per_job": _rounded(total / len(rows)) if rows else None}


def _decisions(records: Records) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for (verb, reason), count in sorted(records.decisions.items()):
        counts.setdefault(verb, {})[str(reason)] = count
    return counts


def _row(row: Row) -> Figures:
    times = {"arrival": row.arrival, "started": row.started, "finished": row.finished, "ended": row.ended}
    spent = {"jct": row.jct, "queued": row.queued, "gpu_seconds": row.gpu_seconds, "overhead": row.overhead}
    rounded = {name: None if value is None else _rounded(value) for name, value in (times | spent).items()}
    return {"name": row.name, "gpus": row.gpus, **rounded, "suspensions": row.suspensions, "migrations": row.migrations}


def _while_jobs_arrive(rows: Sequence[Row]) -> tuple[float, float]:
    arrivals = [row.arrival for row in rows]
    return (min(arrivals), max(arrivals)) if arrivals else (0.0, 0.0)


def _rounded(value: float) -> float:
    """Round to six decimals: further digits depend on the order of summation."""
    return round(value, 6)
