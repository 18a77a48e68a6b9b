"""A chart of a run: one line for each GPU, one colour for each job, time to the right.

It scales from 16 to 400 GPUs: nodes and jobs are labelled only where the labels fit. A job that starts on a GPU in use is drawn
in the upper half of its line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from colorsys import hls_to_rgb
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from muster.scheduling.topology.links import indices
from muster.scheduling.topology.node import Node
from muster.simulator.records import Records, Span

Format = Literal["png", "svg"]
Color = tuple[float, float, float]
UNITS = ((2 * 86400.0, 86400.0, "days"), (2 * 3600.0, 3600.0, "hours"), (300.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))
NAMED_JOBS = 40
"""The largest number of jobs with name labels."""
NAMED_WIDTH = 0.04
"""The smallest fraction of the chart's width at which a bar has a label."""


@dataclass(frozen=True, slots=True)
class Bar:
    """An interval of a job on one GPU; `low` and `high` are positions on the GPU axis."""

    job: str
    start: float
    end: float
    low: float
    high: float


def render(records: Records, nodes: Mapping[str, Node], kind: Format, title: str = "") -> bytes:
    """Return the chart of a closed run recorded with `timeline=True`; the same run gives the same bytes."""
    drawn = bars(records.spans or [], nodes)
    _, unit, word = next(entry for entry in UNITS if records.end >= entry[0])
    figure = Figure(figsize=(12, min(16.0, 1.6 + 0.9 * records.gpus**0.5)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw(axes, drawn, list(records.rows), unit)
    _name_nodes(axes, nodes)
    axes.set(xlim=(0, records.end / unit or 1.0), ylim=(_height(nodes), 0), xlabel=f"time ({word})", title=title)
    with matplotlib.rc_context({"svg.hashsalt": "muster"}):
        written = BytesIO()
        figure.savefig(written, format=kind, dpi=120, metadata={"Date": None} if kind == "svg" else None)
    return written.getvalue()


def _lines(nodes: Mapping[str, Node]) -> dict[tuple[str, int], int]:
    """The line of each GPU, from the top."""
    gpus = [(name, gpu) for name, node in sorted(nodes.items()) for gpu in range(node.machine.gpus)]
    return {gpu: line for line, gpu in enumerate(gpus)}


def _height(nodes: Mapping[str, Node]) -> int:
    return sum(node.machine.gpus for node in nodes.values())


def bars(spans: Sequence[Span], nodes: Mapping[str, Node]) -> list[Bar]:
    """Return a bar for each GPU of each span."""
    lines = _lines(nodes)
    drawn: list[Bar] = []
    busy_until: dict[int, float] = {}
    for span in sorted(spans, key=lambda span: (span.start, span.job, span.node)):
        for gpu in indices(span.gpus):
            line = lines[span.node, gpu]
            shared = busy_until.get(line, 0.0) > span.start
            busy_until[line] = max(busy_until.get(line, 0.0), span.end)
            drawn.append(Bar(span.job, span.start, span.end, line, line + (0.5 if shared else 1.0)))
    return drawn


def _draw(axes: Axes, bars: Sequence[Bar], jobs: Sequence[str], unit: float) -> None:
    """Draw the bars, coloured by order of arrival, and label them if jobs are few."""
    color = {job: _color(index) for index, job in enumerate(jobs)}
    corners = [
        [(bar.start / unit, y) for y in (bar.low, bar.high)] + [(bar.end / unit, y) for y in (bar.high, bar.low)]
        for bar in bars
    ]
    axes.add_collection(PolyCollection(corners, facecolors=[color[bar.job] for bar in bars], linewidths=0))
    if len(jobs) > NAMED_JOBS:
        return
    span = max((bar.end for bar in bars), default=0.0)
    for bar in _longest_bars(bars):
        if bar.end - bar.start < NAMED_WIDTH * span:
            continue
        axes.text(
            (bar.start + bar.end) / 2 / unit,
            (bar.low + bar.high) / 2,
            bar.job,
            fontsize=6,
            ha="center",
            va="center",
            clip_on=True,
        )


def _longest_bars(bars: Sequence[Bar]) -> list[Bar]:
    """The longest bar of each job."""
    longest: dict[str, Bar] = {}
    for bar in bars:
        if bar.job not in longest or bar.end - bar.start > longest[bar.job].end - longest[bar.job].start:
            longest[bar.job] = bar
    return list(longest.values())


def _color(index: int) -> Color:
    """The colour of the job with arrival number `index`; the golden angle keeps successive jobs far apart on the wheel."""
    return hls_to_rgb(index * 0.618034 % 1.0, (0.72, 0.58, 0.66)[index % 3], 0.55)


def _name_nodes(axes: Axes, nodes: Mapping[str, Node]) -> None:
    """Label at most 50 nodes at their first lines; thin lines separate up to 100 nodes."""
    names, line = [], 0
    for name, node in sorted(nodes.items()):
        names.append((line, name))
        line += node.machine.gpus
    step = 1 + (len(names) - 1) // 50
    axes.set_yticks([line for line, _ in names[::step]], [name for _, name in names[::step]], fontsize=7, va="top")
    if len(names) <= 100:
        for line, _ in names[1:]:
            axes.axhline(line, color="0.75", linewidth=0.4, zorder=2)
