"""`muster snapshot` writes the input of a plan from a live cluster to a file; `muster simulate --snapshot` replays it."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from muster.cli import atomic_write
from muster.kube.client import Client
from muster.kube.errors import KubeError
from muster.simulator import dump


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to a file instead of stdout")
    parser.add_argument("--kubeconfig", metavar="FILE", help="default: $KUBECONFIG, a pod's service account, ~/.kube/config")
    parser.epilog = "Environment and commands of containers are left out."


def run(args: argparse.Namespace) -> int:
    """Read the cluster, write the file, and return the exit code."""
    try:
        content = asyncio.run(_take(args.kubeconfig))
        if args.output:
            atomic_write.write(args.output, content)
        else:
            sys.stdout.buffer.write(content)
    except (KubeError, OSError) as error:
        print(f"muster snapshot: {error}", file=sys.stderr)
        return 1
    return 0


async def _take(kubeconfig: str | None) -> bytes:
    async with await Client.connect(kubeconfig) as client:
        return await dump.take(client)
