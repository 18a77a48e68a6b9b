"""CPU time and memory of the simulator: Philly's 82,247 jobs on 2,500 GPUs under policy muster: `make bench-simulator`.

Each size (`--sizes`, a number of jobs from the start of the trace) runs in its own process, so that peak memory is that of one
run. An event is an arrival or a departure. Seconds are CPU time, `reading_s` of them for the trace. The last line is JSON.
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
    """Return the scenario of the first `jobs` jobs."""
    groups = [{"count": NODES, "gpus": GPUS_PER_NODE, "name": "philly", "model": "P100"}]
    return Scenario.model_validate(
        {
            "cluster": {"groups": groups, "nodes_per_rack": 16},
            "jobs": {"source": "philly", "path": TRACE, "limit": jobs},
            "policy": policy,
        }
    )


def measure(jobs: int, policy: str) -> dict[str, Any]:
    """Simulate in this process and return its CPU time and memory."""
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
    """Measure each size and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="JOBS")
    parser.add_argument("--policy", default="muster")
    parser.add_argument("--measure", type=int, metavar="JOBS", help="measure this size in this process")
    options = parser.parse_args(argv)
    if options.measure:
        print(json.dumps(measure(options.measure, options.policy)))
        return
    results = [_in_a_process(size, options.policy) for size in options.sizes]
    costs = {result["jobs"]: result["us_per_event"] for result in results}
    growth = {"from": min(costs), "to": 80_000 if 80_000 in costs else max(costs)}
    ratio = round(costs[growth["to"]] / costs[growth["from"]], 2)
    print(json.dumps({"policy": options.policy, "runs": results, "growth": growth | {"cost_per_event": ratio}}))


def _in_a_process(size: int, policy: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", str(size), "--policy", policy]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    cost = f"{result['us_per_event']} us per event, {result['peak_mib']} MiB"
    print(f"{result['jobs']} jobs: {result['seconds']} s, {cost}", flush=True)
    return result


if __name__ == "__main__":
    main()
