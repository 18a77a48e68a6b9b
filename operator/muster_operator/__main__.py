"""`python -m muster_operator`: connect, listen, decide, until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
from collections.abc import Coroutine, Iterable
from typing import Any

import kopf
import uvloop
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from muster.api import names
from muster.kube import paths
from muster.kube.client import Client
from muster.kube.events import Recorder
from muster.kube.objects import Node, Pod
from muster.kube.reflector import Reflector
from muster.scheduling.settings import Settings
from muster_operator import listeners
from muster_operator.controller import Controller
from muster_operator.desk import Desk
from muster_operator.hands import Hands
from muster_operator.stores import PodTemplate, PriorityClass, Service, Stores

log = logging.getLogger("muster.operator")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="muster-operator", description=__doc__)
    parser.add_argument("--kubeconfig", help="default: the pod's service account, $KUBECONFIG or ~/.kube/config")
    parser.add_argument("--host", default="127.0.0.1", help="address of /metrics, /healthz and /readyz (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8081, help="port of the same (default: %(default)s)")
    parser.add_argument("--no-preemption", action="store_true", help="never take a running gang off its GPUs for another")
    parser.add_argument(
        "--slice-seconds",
        type=float,
        default=60.0,
        help="how often jobs with sharing.timeSlicing take turns (default: %(default)s)",
    )
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    return parser.parse_args()


async def serve(options: argparse.Namespace) -> None:
    """Run until SIGTERM or SIGINT."""
    if options.kubeconfig:
        os.environ["KUBECONFIG"] = options.kubeconfig  # kopf looks there
    stores = Stores()
    async with await Client.connect(options.kubeconfig) as client:
        recorder = Recorder(client, "muster-operator")
        desk = Desk(stores, Hands(client, stores), recorder)
        controller = Controller(desk, Settings(preemption=not options.no_preemption, slice_seconds=options.slice_seconds))
        site = await _endpoints(options, stores)
        work = [
            Reflector(client, paths.nodes(), Node, stores.view.nodes).run(),
            Reflector(client, paths.pods(), Pod, stores.view.pods).run(),
            Reflector(client, paths.services(), Service, stores.services, label_selector=listeners.OURS).run(),
            Reflector(client, paths.podtemplates(), PodTemplate, stores.templates, label_selector=names.TAKEN_BACK).run(),
            Reflector(client, listeners.PRIORITY_CLASSES, PriorityClass, stores.priorities).run(),
            listeners.audit(client, stores.view.jobs, stores.queues),
            recorder.run(),
            controller.run(),
            _freeze(stores),
        ]
        registry = listeners.registry(stores.view.jobs, stores.queues)
        await _beside(kopf.operator(registry=registry, clusterwide=True, standalone=True), work)
        await site.cleanup()


async def _beside(listening: Coroutine[Any, Any, None], work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Work until kopf ends, as SIGTERM and SIGINT make it, or a part fails: then all ends; the state is in the cluster."""
    kopf_task = asyncio.create_task(listening)
    tasks = {kopf_task, *(asyncio.create_task(part) for part in work)}
    running = tasks
    try:
        while not kopf_task.done():
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _freeze(stores: Stores) -> None:
    """What is there after the first lists lives long: keep the garbage collector off it, and let it look seldom at the rest.

    A burst of gangs makes many objects and few cycles; by default a tenth of the operator's time goes into looking for them.
    """
    await stores.wait_synced()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)


async def _endpoints(options: argparse.Namespace, stores: Stores) -> web.AppRunner:
    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthy(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def ready(_: web.Request) -> web.Response:
        return web.Response(text="ok" if stores.synced else "waiting for the first lists", status=200 if stores.synced else 503)

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthy), web.get("/readyz", ready)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, options.host, options.port).start()
    return runner


def main() -> None:
    """Entry point of muster-operator."""
    options = arguments()
    logging.basicConfig(level=options.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("kopf").setLevel(logging.WARNING)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(options))


if __name__ == "__main__":
    main()
