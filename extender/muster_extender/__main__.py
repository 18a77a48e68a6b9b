"""`muster-extender`: reflectors into one view, and the HTTP server over it, in one process and one event loop.

Ends with status 0 on SIGTERM or SIGINT, after the requests under way are answered; with status 1 and a sentence where it
cannot start. It serves at once: /readyz says when the view is complete, and the filter fails cycles until then.
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
from collections.abc import Iterator, Sequence
from typing import Any, Final

import uvicorn
import uvloop

from muster.kube import paths
from muster.kube.access import NoAccess
from muster.kube.client import Client
from muster.kube.objects import DLJob, Node, Pod, gpus_of
from muster.kube.reflector import Reflector
from muster_extender import rules
from muster_extender.app import create_app
from muster_extender.guard import Guard
from muster_extender.metrics import Metrics
from muster_extender.reservations import GuardedView
from muster_extender.scores import Policy
from muster_extender.waking import Waking, patcher

log: Final = logging.getLogger("muster_extender")

KEEP_ALIVE_SECONDS: Final = 120
"""Longer than Go keeps idle connections (90 s): it does not send a POST again that met a closing one."""
_GOING: Final = "status.phase!=Succeeded,status.phase!=Failed"


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
        view = GuardedView()
        reflectors = _reflectors(client, view)
        seen = rules.cluster(view)
        waking = Waking(seen, patcher(client))
        app = create_app(view, Guard(seen, waking), Metrics(seen, waking, reflectors), Policy(options.policy))
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
        running = (*(reflector.run() for reflector in reflectors.values()), waking.run(), _settle(view))
        work = [asyncio.create_task(each) for each in running]
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
    """End the process when a part of it fails: whoever restarts it starts from a clean view."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("a part of the extender failed; ending", exc_info=error)
        server.should_exit = True


def _reflectors(client: Client, view: GuardedView) -> dict[str, Reflector[Any]]:
    """Pods without GPUs and pods that are over hold nothing, so they are left out."""
    return {
        "nodes": Reflector(client, paths.nodes(), Node, view.nodes),
        "dljobs": Reflector(client, paths.dljobs(), DLJob, view.jobs),
        "pods": Reflector(client, paths.pods(), Pod, view.pods, keep=lambda pod: gpus_of(pod) > 0, field_selector=_GOING),
    }


async def _settle(view: GuardedView) -> None:
    """Keep the garbage collector off what was read first: its pauses are the slowest requests."""
    await view.wait_synced()
    gc.collect()
    gc.freeze()
    log.info("ready: %d nodes, %d pods, %d jobs", len(view.nodes), len(view.pods), len(view.jobs))


def _listen(host: str, port: int) -> socket.socket:
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        # asyncio does that only for sockets that name their protocol; without it each answer waits 40 ms for Nagle.
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
