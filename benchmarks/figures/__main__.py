"""Published figures compared with ours: `make figures`, or `python -m benchmarks.figures NAME ...` for some modules.

Runs the figure modules and writes build/figures.json (a list of figures) and docs/figures/README.md with the plots next to it.
A failing module becomes a missed figure with its error. The exit code is 1 if a target is missed.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.figures.figure import Figure

MODULES = {
    "locality": "Locality and interference (Gandiva, OSDI'18, figures 1 to 4)",
    "sharing": "Time-slicing, packing, grow and shrink (Gandiva, figures 9 to 11, table 1)",
    "automl": "Searching hyper-parameters (Gandiva, tables 3 and 4)",
    "gandiva_experiments": "Clusters under load (Gandiva, experiments A and B)",
    "ffdl": "Spread, Pack and half-placed gangs (FfDL, Middleware'19)",
    "tiresias60": "The 60 jobs of the Tiresias simulator (NSDI'19)",
    "pollux": "The workloads of Pollux (OSDI'21)",
    "gavel": "Continuous single-GPU jobs (Gavel, OSDI'20)",
    "openb": "Allocation at full demand (FGD, ATC'23, openb)",
}
"""The figure modules of this folder with their titles, in the order of the page."""
JSON, PAGE = Path("build/figures.json"), Path("docs/figures/README.md")
INTRODUCTION = """# Figures

What papers published, and what the same experiment gives here. Written by `make figures`; do not edit. The experiments are
modules in [benchmarks/figures/](../../benchmarks/figures), their parameters in
[benchmarks/figures/scenarios/](../../benchmarks/figures/scenarios).
"""


@dataclass(frozen=True, slots=True)
class Section:
    """The results of one module."""

    title: str
    figures: list[Figure]
    plots: list[str]


def main(names: Sequence[str] = ()) -> int:
    """Run all or the named modules and write the page and the JSON; return the exit code."""
    for old in PAGE.parent.glob("*.png"):
        old.unlink()
    sections = []
    for name in names or MODULES:
        title = MODULES[name]
        began = time.monotonic()
        sections.append(run(name, title, PAGE.parent))
        missed = sum(not figure.met for figure in sections[-1].figures)
        count = len(sections[-1].figures)
        print(f"{name}: {count - missed} of {count} met, {time.monotonic() - began:.0f} s", flush=True)
    figures = [figure for section in sections for figure in section.figures]
    JSON.parent.mkdir(exist_ok=True)
    JSON.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")
    PAGE.write_text(page(sections))
    for figure in figures:
        if not figure.met:
            print(f"not met: {figure.figure}: {figure.ours}, target {figure.target}. {figure.note}")
    return int(not all(figure.met for figure in figures))


def run(name: str, title: str, folder: Path) -> Section:
    """Run one module."""
    try:
        module = importlib.import_module(f"benchmarks.figures.{name}")
        figures: list[Figure] = module.figures()
        plots = _plots(module.plot, folder)
    except Exception as error:  # a failing module must not stop the others
        message = f"{type(error).__name__}: {error}"
        return Section(title, [Figure(name, "-", "failed", "a figure", False, message)], [])
    return Section(title, figures, plots)


def page(sections: Sequence[Section]) -> str:
    """Return the page."""
    parts = [INTRODUCTION]
    for section in sections:
        rows = ["| figure | published | ours | target | met |", "|---|---|---|---|---|"]
        for figure in section.figures:
            cells = (figure.figure, figure.published, figure.ours, figure.target, "yes" if figure.met else "**no**")
            rows.append(f"| {' | '.join(map(_cell, cells))} |")
        notes = [f"- {_cell(figure.figure)}: {_cell(figure.note)}" for figure in section.figures if figure.note]
        images = [f"![{section.title}]({plot})" for plot in section.plots]
        blocks = [f"## {section.title}", "\n".join(rows), "\n".join(notes), "\n\n".join(images)]
        parts.append("\n\n".join(block for block in blocks if block) + "\n")
    return "\n".join(parts)


def _plots(plot: Callable[[Path], None], folder: Path) -> list[str]:
    """Draw into an empty folder and move the files to `folder`; return their names."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        plot(Path(fresh))
        return [file.rename(folder / file.name).name for file in sorted(Path(fresh).iterdir())]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
