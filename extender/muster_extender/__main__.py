"""`muster-extender`: reflectors feed one view, HTTP servers answer from it, in one process and one event loop.

Each listener has a server of its own with limits of its own: "own" on loopback for muster's kube-scheduler, "status" for probes
and Prometheus, and on request "service" for the cluster's own kube-scheduler. What fills one leaves the others alone.

The process ends with status 0 on SIGTERM or SIGINT, once the requests in flight are answered, and with status 1 and a message
if it cannot start. It serves at once: /readyz is 503 until the view is complete, and filter requests fail until then.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvloop

from muster.allocation.pods import gpus_of
from muster.allocation.view import ClusterView
from muster.allocation.vouching import Vouching
from muster.kube import paths
from muster.kube.access import NoAccess
from muster.kube.client import Client
from muster.kube.objects import DLJob, Node, Pod, decoder
from muster.kube.reflector import Reflector
from muster_extender import rules
from muster_extender.app import asking_app, status_app
from muster_extender.certificates import BadCertificates, Certificates
from muster_extender.connections import Config, Limits
from muster_extender.guard import Asker, Guard
from muster_extender.metrics import Metrics
from muster_extender.scores import Policy
from muster_extender.servers import Servers
from muster_extender.waking import Waking, patcher

log: Final = logging.getLogger("muster_extender")

_UNFINISHED: Final = "status.phase!=Succeeded,status.phase!=Failed"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the extender until it is told to end."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(options))
    except (NoAccess, BadCertificates, OSError) as error:
        sys.exit(f"muster-extender: {error}")


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT; raise NoAccess, BadCertificates or OSError where that cannot begin."""
    with contextlib.ExitStack() as sockets:
        listening = {listener: sockets.enter_context(_listen(*address)) for listener, address in _addresses(options).items()}
        certificates = Certificates(options.service_tls) if options.service_tls else None
        async with await Client.connect(options.kubeconfig) as client:
            await _serve(options, client, listening, certificates)


async def _serve(
    options: argparse.Namespace, client: Client, listening: dict[str, socket.socket], certificates: Certificates | None
) -> None:
    view = ClusterView()
    reflectors = _reflectors(client, view)
    cluster = rules.cluster(view)
    waking = Waking(cluster, patcher(client))
    guard = Guard(cluster, waking, Policy(options.policy))
    metrics = Metrics(cluster, waking, reflectors)
    apps = {
        "own": asking_app(guard, metrics, Asker.OWN),
        "status": status_app(view, metrics),
        "service": asking_app(guard, metrics, Asker.SERVICE),
    }
    servers = Servers()
    for name, bound in listening.items():
        secured = certificates if name == "service" else None
        servers.add(bound, Config(apps[name], Limits(), partial(_count_closed, metrics, name), secured))
        log.info("%s: listening on %s:%d", name, *bound.getsockname()[:2])
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, servers.end)
    running = (_follow(Vouching(client, view), reflectors.values()), waking.run(), _settle(view))
    work = [asyncio.create_task(coroutine) for coroutine in running]
    for task in work:
        task.add_done_callback(lambda task: _check(task, servers))
    try:
        await servers.run()
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)


def _count_closed(metrics: Metrics, listener: str, reason: str) -> None:
    metrics.closed.labels(listener, reason).inc()


def _addresses(options: argparse.Namespace) -> dict[str, tuple[str, int]]:
    """Return host and port of each listener."""
    found = {"own": ("127.0.0.1", options.port), "status": (options.metrics_host, options.metrics_port)}
    if options.service_port is not None:
        found["service"] = (options.service_host, options.service_port)
    return found


def _check(task: asyncio.Task[None], servers: Servers) -> None:
    """End the process when a task of it fails: a restart begins with a clean view."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("a part of the extender failed; ending", exc_info=error)
        servers.end()


def _reflectors(client: Client, view: ClusterView) -> dict[str, Reflector[Any]]:
    """Reflectors by resource. Pods without GPUs and finished pods hold nothing, so they are left out."""
    return {
        "nodes": Reflector(client, paths.nodes(), decoder(Node), view.nodes),
        "dljobs": Reflector(client, paths.dljobs(), decoder(DLJob), view.jobs),
        "pods": Reflector(
            client, paths.pods(), decoder(Pod), view.pods, keep=lambda pod: gpus_of(pod) > 0, field_selector=_UNFINISHED
        ),
    }


async def _follow(vouching: Vouching, reflectors: Iterable[Reflector[Any]]) -> None:
    """Feed the view, once it is known what counts of a pod's words."""
    await vouching.settle()
    await asyncio.gather(vouching.run(), *(reflector.run() for reflector in reflectors))


async def _settle(view: ClusterView) -> None:
    """Exempt the first lists from garbage collection: its pauses would be the slowest requests."""
    await view.wait_synced()
    gc.collect()
    gc.freeze()
    log.info("ready: %d nodes, %d pods, %d jobs", len(view.nodes), len(view.pods), len(view.jobs))


def _listen(host: str, port: int) -> socket.socket:
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        # asyncio sets it only on sockets that name their protocol; without it Nagle's algorithm delays answers by 40 ms.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another port") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="muster-extender", description="Filter and prioritize for muster's kube-scheduler.")
    parser.add_argument("--kubeconfig", help="default: $KUBECONFIG, the pod's service account, ~/.kube/config")
    parser.add_argument(
        "--port", type=int, default=8888, help="port of loopback for muster's kube-scheduler (default: %(default)s)"
    )
    parser.add_argument(
        "--metrics-host", default="127.0.0.1", help="address of /metrics, /healthz and /readyz (default: %(default)s)"
    )
    parser.add_argument("--metrics-port", type=int, default=8082, help="port of the same (default: %(default)s)")
    parser.add_argument("--service-port", type=int, help="port for the cluster's own kube-scheduler (default: none)")
    parser.add_argument("--service-host", default="0.0.0.0", help="address of the same (default: %(default)s)")
    parser.add_argument(
        "--service-tls",
        type=Path,
        metavar="FOLDER",
        help="serve it by TLS with FOLDER/tls.crt and tls.key, to clients with a certificate of ca.crt alone",
    )
    parser.add_argument("--policy", choices=[p.value for p in Policy], default="pack", help="default: %(default)s")
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"], default="info")
    return parser


if __name__ == "__main__":
    main()
