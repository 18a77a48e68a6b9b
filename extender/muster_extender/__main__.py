"""`muster-extender`: reflectors feed one view, an HTTP server answers from it, in one process and one event loop.

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
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import uvicorn
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
from muster_extender.app import create_app
from muster_extender.guard import Guard
from muster_extender.metrics import Metrics
from muster_extender.scores import Policy
from muster_extender.waking import Waking, patcher

log: Final = logging.getLogger("muster_extender")

KEEP_ALIVE_SECONDS: Final = 120
"""Longer than Go keeps idle connections (90 s), since Go does not repeat a POST that met a closing one."""
_UNFINISHED: Final = "status.phase!=Succeeded,status.phase!=Failed"


class Server(uvicorn.Server):
    """uvicorn that leaves the signals to this module: it would end the process by the signal, not with status 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def main(argv: Sequence[str] | None = None) -> None:
    """Run the extender until it is told to end."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(options))
    except (NoAccess, OSError) as error:
        sys.exit(f"muster-extender: {error}")


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT; raise NoAccess or OSError where that cannot begin."""
    listening = _listen(options.host, options.port)
    async with await Client.connect(options.kubeconfig) as client:
        view = ClusterView()
        reflectors = _reflectors(client, view)
        cluster = rules.cluster(view)
        waking = Waking(cluster, patcher(client))
        app = create_app(Guard(cluster, waking, Policy(options.policy)), Metrics(cluster, waking, reflectors))
        config = uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            lifespan="off",
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=5,
        )
        server = Server(config)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, server.handle_exit, number, None)
        running = (_follow(Vouching(client, view), reflectors.values()), waking.run(), _settle(view))
        work = [asyncio.create_task(coroutine) for coroutine in running]
        for task in work:
            task.add_done_callback(lambda task: _check(task, server))
        log.info("listening on http://%s:%d", *listening.getsockname()[:2])
        try:
            await server.serve([listening])
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)


def _check(task: asyncio.Task[None], server: Server) -> None:
    """End the process when a task of it fails: a restart begins with a clean view."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("a part of the extender failed; ending", exc_info=error)
        server.should_exit = True


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
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --host or --port") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="muster-extender", description="Filter and prioritize for muster's kube-scheduler.")
    parser.add_argument("--kubeconfig", help="default: $KUBECONFIG, the pod's service account, ~/.kube/config")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8888, help="port to listen on, 0 for any free one (default: %(default)s)")
    parser.add_argument("--policy", choices=[p.value for p in Policy], default="pack", help="default: %(default)s")
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"], default="info")
    return parser


if __name__ == "__main__":
    main()
