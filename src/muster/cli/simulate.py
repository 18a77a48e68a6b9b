"""`muster simulate SCENARIO.yaml` runs a policy on a scenario; `--snapshot FILE` runs it on a live cluster's snapshot.

The result goes to stdout or to a file, everything else to stderr. No file is written before the run has ended.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from muster.cli import atomic_write, summary
from muster.simulator import scenario as scenarios
from muster.simulator.assembly import assemble
from muster.simulator.engine import Moment, Simulation
from muster.simulator.records import Records
from muster.simulator.report import report
from muster.simulator.yaml_errors import BadInput

SHOWN_EVERY = 200
"""Moments of the simulation between two updates of the progress bar."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("scenario", nargs="?", type=Path, metavar="SCENARIO.yaml", help="what to simulate (docs/simulator.md)")
    parser.add_argument("--snapshot", type=Path, metavar="FILE", help="instead: a live cluster, as `muster snapshot` wrote it")
    parser.add_argument(
        "--assume-duration", type=float, metavar="SECONDS", help="with --snapshot: run on; each job takes this long"
    )
    parser.add_argument("--json", action="store_true", help="the result as JSON instead of a table")
    parser.add_argument("--jobs", action="store_true", help="a row for each job as well")
    parser.add_argument("--timeline", type=Path, metavar="FILE", help="draw which job had which GPU when (.png or .svg)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the result to a file instead of stdout")


def run(args: argparse.Namespace) -> int:
    """Simulate and return the exit code: 2 for a wrong command line or bad input."""
    wrong = _wrong(args)
    if wrong:
        return _fail(wrong)
    try:
        return _what_if(args) if args.snapshot else _simulate(args)
    except (BadInput, OSError) as error:
        return _fail(str(error))


def _wrong(args: argparse.Namespace) -> str:
    if (args.scenario is None) == (args.snapshot is None):
        return "expected either a scenario or --snapshot FILE"
    if args.timeline and args.timeline.suffix not in (".png", ".svg"):
        return f"--timeline: found {args.timeline.name}; expected a name that ends in .png or .svg"
    if args.assume_duration is not None and not (args.snapshot and args.assume_duration > 0):
        return "--assume-duration: expected a number of seconds above 0, together with --snapshot"
    if args.snapshot and args.timeline and args.assume_duration is None:
        return "--timeline: a snapshot alone has no times; expected --assume-duration as well"
    misplaced = [path for path in (args.timeline, args.output) if path and not path.absolute().parent.is_dir()]
    return f"{misplaced[0]}: there is no folder {misplaced[0].parent}" if misplaced else ""


def _simulate(args: argparse.Namespace) -> int:
    scenario = scenarios.load(args.scenario)
    with _progress() as on_moment:
        simulation = assemble(scenario, args.scenario.parent, timeline=bool(args.timeline), on_moment=on_moment)
        records = simulation.run()
    figures = {"policy": scenario.policy.name, "seed": scenario.seed, **report(records, scenario.window, jobs=args.jobs)}
    if args.timeline:
        _draw(args.timeline, simulation, records, args.scenario.stem)
    _tell(args, figures, summary.tables(figures))
    return 0


def _what_if(args: argparse.Namespace) -> int:
    from muster.simulator import whatif  # needs the packages of the operator, which a scenario does not

    snapshot = whatif.load(args.snapshot)
    decisions = whatif.decide(snapshot)
    figures: dict[str, Any] = {"decisions": [whatif.told(decision) for decision in decisions]}
    tables = [summary.decided(figures["decisions"])]
    if args.assume_duration is not None:
        with _progress() as on_moment:
            simulation = whatif.run_on(snapshot, args.assume_duration, timeline=bool(args.timeline), on_moment=on_moment)
            records = simulation.run()
        figures["run"] = report(records, jobs=args.jobs)
        tables += summary.tables(figures["run"])
        if args.timeline:
            _draw(args.timeline, simulation, records, args.snapshot.stem)
    _tell(args, figures, tables)
    return 0


def _draw(path: Path, simulation: Simulation, records: Records, title: str) -> None:
    from muster.simulator import timeline  # matplotlib takes half a second to load

    atomic_write.write(
        path, timeline.render(records, simulation.cluster.nodes, "svg" if path.suffix == ".svg" else "png", title)
    )


def _tell(args: argparse.Namespace, figures: dict[str, Any], tables: list[Table]) -> None:
    """Write the result in the requested form to the requested place."""
    if args.json:
        text = json.dumps(figures, indent=2) + "\n"
    else:
        text = summary.text(tables, terminal=sys.stdout.isatty() and not args.output)
    if args.output:
        atomic_write.write(args.output, text.encode())
    else:
        sys.stdout.write(text)


@contextmanager
def _progress() -> Iterator[Moment | None]:
    """Show on a terminal how many of the jobs have ended; show nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    done, day = TextColumn("{task.completed} of {task.total} jobs"), TextColumn("{task.fields[day]}")
    with Progress(done, BarColumn(), day, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=1, day="")
        moments = 0

        def on_moment(simulation: Simulation) -> None:
            nonlocal moments
            moments += 1
            if moments % SHOWN_EVERY == 0:
                ended = len(simulation.records.rows) - len(simulation.runs)
                progress.update(task, total=simulation.submitted, completed=ended, day=summary.duration(simulation.now))

        yield on_moment


def _fail(message: str) -> int:
    for line in message.splitlines():
        print(f"muster simulate: {line}", file=sys.stderr)
    return 2
