"""`muster demo`: what muster does, shown on a real control plane, in a few minutes. The last line is one JSON object."""

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
    """Add no option: the demo is always the same."""
    parser.epilog = "Starts a control plane of its own on loopback and stops it again; `muster local` clusters are not touched."


def run(_: argparse.Namespace) -> int:
    """Play the demo and return the exit code: 1, with a sentence, where something it needs is not to be had."""
    # SIGTERM as Ctrl-C: what was started is stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        figures = script.play(Show())
    except (LocalError, KubeError) as error:
        print(f"muster demo: {error}", file=sys.stderr)
        return 1
    print(json.dumps(figures), flush=True)
    return 0
