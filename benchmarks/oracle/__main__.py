"""kube-scheduler as the oracle of muster's planner: `make bench-oracle`, 500 random gangs.

Clusters and gangs are drawn by hypothesis (`mix` has what from), and tried one after another on a real control plane: first
placed pod by pod by kube-scheduler alone, then by muster. Of what muster admits kube-scheduler is to bind 99.5 % at the first
try; of what kube-scheduler fits muster is to admit 99 %. Every miss is printed. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from benchmarks.oracle import BOUND, FITTED, run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the contest, print its figures, and say whether they are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=25, help="random clusters (default: %(default)s)")
    parser.add_argument("--gangs", type=int, default=20, help="gangs on each (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the random choices (default: %(default)s)")
    options = parser.parse_args(argv)
    tally = run(options.worlds, options.gangs, options.seed, say=lambda line: print(line, flush=True))
    figures = {
        "gangs": tally.gangs,
        "fitted": tally.fitted,
        "admitted": tally.admitted,
        "bound at the first try": round(tally.bound_share, 4),
        "admitted of those that fit": round(tally.admitted_share, 4),
    }
    print(json.dumps(figures))
    return int(tally.bound_share < BOUND or tally.admitted_share < FITTED)


if __name__ == "__main__":
    sys.exit(main())
