"""What the simulator costs: Philly's 82,247 jobs on 2,500 GPUs under policy muster, on one core: `make bench-simulator`.

The first so many jobs of the trace (`--sizes`), each time in a process of its own, so that the peak of memory is that run's. An
event is the arrival or the departure of a job. Seconds are CPU time, `reading_s` of them for the trace. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from muster.simulator.assembly import assemble
from muster.simulator.report import report
from muster.simulator.scenario import Scenario

TRACE = Path(__file__).parent / "data" / "philly" / "philly.csv"
NODES, GPUS_PER_NODE = 313, 8
SIZES = (10_000, 80_000, 82_247)


def scenario(jobs: int, policy: str) -> Scenario:
    """Return the scenario of the first so many jobs."""
    groups = [{"count": NODES, "gpus": GPUS_PER_NODE, "name": "philly", "model": "P100"}]
    return Scenario.model_validate(
        {
            "cluster": {"groups": groups, "nodes_per_rack": 16},
            "jobs": {"source": "philly", "path": TRACE, "limit": jobs},
            "policy": policy,
        }
    )


def measure(jobs: int, policy: str) -> dict[str, Any]:
    """Simulate in this process and return what it took."""
    began = time.process_time()
    simulation = assemble(scenario(jobs, policy), Path())
    read = time.process_time()
    records = simulation.run()
    ended = time.process_time()
    figures = report(records)
    events = figures["jobs"]["arrived"] + figures["jobs"]["finished"]
    return {
        "jobs": jobs,
        "finished": figures["jobs"]["finished"],
        "seconds": round(ended - began, 2),
        "reading_s": round(read - began, 2),
        "us_per_event": round(1e6 * (ended - read) / events, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "mean_jct_s": figures["jct"]["mean"],
        "allocation": figures["allocation"]["window"],
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure each size in turn, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="JOBS")
    parser.add_argument("--policy", default="muster")
    parser.add_argument("--one", type=int, metavar="JOBS", help="measure this size in this process")
    options = parser.parse_args(argv)
    if options.one:
        print(json.dumps(measure(options.one, options.policy)))
        return
    found = [_in_a_process(size, options.policy) for size in options.sizes]
    costs = {each["jobs"]: each["us_per_event"] for each in found}
    growth = {"from": min(costs), "to": 80_000 if 80_000 in costs else max(costs)}
    ratio = round(costs[growth["to"]] / costs[growth["from"]], 2)
    print(json.dumps({"policy": options.policy, "runs": found, "growth": growth | {"cost_per_event": ratio}}))


def _in_a_process(size: int, policy: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", str(size), "--policy", policy]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{found['jobs']} jobs: {found['seconds']} s, {found['us_per_event']} us an event, {found['peak_mib']} MiB", flush=True
    )
    return found


if __name__ == "__main__":
    main()
