"""`muster-agent`: publishes the topology and metrics of this node's GPUs.

With --stand-in it simulates the GPUs of the machine type in the node's label (clusters without GPUs); with --local-nodes it
does so for all nodes of a `muster local` cluster.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from muster.kube.client import Client
from muster.kube.errors import KubeError
from muster_agent.local import LocalNodes
from muster_agent.metrics import Gauges, serve
from muster_agent.node import Reader, run_node
from muster_agent.publish import Publisher
from muster_agent.standin import labelled

log = logging.getLogger("muster_agent")


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; return the exit status."""
    args = _parse(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(_run(args))
    except (KubeError, OSError) as error:
        print(f"muster-agent: {error}", file=sys.stderr)
        return 1
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="muster-agent", description=__doc__)
    node = os.environ.get("NODE_NAME")
    parser.add_argument("--node-name", default=node, help="name of this node (default: $NODE_NAME)")
    parser.add_argument("--local-nodes", action="store_true", help="publish for every node with the label muster.dev/machine")
    parser.add_argument(
        "--stand-in", action="store_true", help="simulate the GPUs of the machine type in the node's label muster.dev/machine"
    )
    parser.add_argument("--kubeconfig", help="default: $KUBECONFIG, the pod's service account, ~/.kube/config")
    parser.add_argument("--interval", type=_seconds, default=30.0, help="seconds between readings (default: 30)")
    parser.add_argument("--metrics-port", type=int, default=9402, help="port of /metrics and /healthz (default: 9402)")
    parser.add_argument("--sysfs", type=Path, default=Path("/sys"), help="path of the host's /sys (default: /sys)")
    args = parser.parse_args(argv)
    if not (args.node_name or args.local_nodes):
        parser.error("the node name is missing: give --node-name, or set NODE_NAME from spec.nodeName (downward API)")
    return args


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text}; expected a number of seconds above 0")
    return seconds


async def _run(args: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    async with await Client.connect(args.kubeconfig) as client:
        if args.local_nodes:
            with tempfile.TemporaryDirectory(prefix="muster-agent-") as workdir:
                await LocalNodes(client, Path(workdir)).run(stop)
        else:
            await _run_node(args, client, stop)
    log.info("stopped")


async def _run_node(args: argparse.Namespace, client: Client, stop: asyncio.Event) -> None:
    gauges = Gauges(args.node_name, patience=3 * args.interval + 60)
    server = await serve(gauges, args.metrics_port)
    try:
        hardware = await labelled.hardware(client, args.node_name) if args.stand_in else None
        with labelled.stood_in(hardware) if args.stand_in else nullcontext(args.sysfs) as sysfs:
            await run_node(args.node_name, Reader(sysfs), Publisher(client), gauges, args.interval, stop)
    finally:
        await server.cleanup()


if __name__ == "__main__":
    sys.exit(main())
