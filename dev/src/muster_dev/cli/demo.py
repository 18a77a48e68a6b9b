"""`muster demo`: muster on a real control plane, shown in a few minutes. The last line of output is one JSON object."""

from __future__ import annotations

import argparse
import json
import signal
import sys

from muster.kube.errors import KubeError
from muster_dev.demo import script
from muster_dev.demo.show import Show
from muster_dev.local.errors import LocalError


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the demo, which has no options."""
    parser.epilog = (
        "Starts a separate control plane on loopback and stops it at the end; a cluster of `muster local` is not touched."
    )


def run(_: argparse.Namespace) -> int:
    """Play the demo and return the exit code: 1, with a message, if the cluster fails."""
    # SIGTERM works as Ctrl-C: the cluster is stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        figures = script.play(Show())
    except (LocalError, KubeError) as error:
        print(f"muster demo: {error}", file=sys.stderr)
        return 1
    print(json.dumps(figures), flush=True)
    return 0
