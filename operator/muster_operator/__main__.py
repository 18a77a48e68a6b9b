"""`python -m muster_operator`: stand for election, connect, listen, decide, until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import kopf
import uvloop

from muster.api import names
from muster.kube import paths
from muster.kube.client import Client
from muster.kube.events import Recorder
from muster.kube.objects import Node, Pod
from muster.kube.reflector import Reflector
from muster.scheduling.decisions import Preempt
from muster.scheduling.settings import Settings
from muster_operator import listeners, planning, watch_health
from muster_operator.api_writer import ApiWriter
from muster_operator.controller import Controller
from muster_operator.definitions import Definitions
from muster_operator.election import Election
from muster_operator.endpoints import Endpoints
from muster_operator.stores import PodTemplate, PriorityClass, Service, Stores
from muster_operator.work_queue import WorkQueue

log = logging.getLogger("muster.operator")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="muster-operator", description=__doc__)
    parser.add_argument("--kubeconfig", help="default: $KUBECONFIG, the pod's service account, ~/.kube/config")
    parser.add_argument("--host", default="127.0.0.1", help="address of /metrics, /healthz and /readyz (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8081, help="port of the same (default: %(default)s)")
    parser.add_argument(
        "--lease",
        type=_lease,
        metavar="NAMESPACE/NAME",
        help="decide only while holding this Lease, so that there may be several operators (default: there is one)",
    )
    parser.add_argument("--no-preemption", action="store_true", help="never take a running gang off its GPUs for another")
    parser.add_argument(
        "--slice-seconds",
        type=float,
        default=60.0,
        help="how often jobs with sharing.timeSlicing take turns (default: %(default)s)",
    )
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    return parser.parse_args()


def _lease(text: str) -> str:
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise argparse.ArgumentTypeError(f"{text!r} names no Lease: give NAMESPACE/NAME")
    return text


async def serve(options: argparse.Namespace) -> None:
    """Run until SIGTERM or SIGINT."""
    if options.kubeconfig:
        os.environ["KUBECONFIG"] = options.kubeconfig  # kopf looks there
    main = asyncio.current_task()
    assert main is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main.cancel)  # until kopf takes over
    async with (
        Endpoints(options.host, options.port) as endpoints,
        _leading(options, endpoints),
        await Client.connect(options.kubeconfig) as client,
    ):
        definitions = Definitions(client)
        while True:
            endpoints.waits_for = lambda: definitions.trouble
            await definitions.wait()
            try:
                await _decide(options, client, endpoints)
                return
            except Exception:
                if not await definitions.look():
                    raise
                log.warning("its definitions were taken away: begins anew when they are back")


@asynccontextmanager
async def _leading(options: argparse.Namespace, endpoints: Endpoints) -> AsyncIterator[None]:
    """Go on as the leader, where there may be several operators; hand the lease back in the end."""
    if options.lease is None:
        yield
        return
    election = Election(options.kubeconfig, options.lease)
    endpoints.waits_for = lambda: election.trouble
    try:
        await election.win()
        yield
    finally:
        await election.resign()


async def _decide(options: argparse.Namespace, client: Client, endpoints: Endpoints) -> None:
    stores = Stores()
    endpoints.waits_for = lambda: "" if stores.synced else "waiting for the first lists"
    recorder = Recorder(client, "muster-operator")
    work_queue = WorkQueue(stores, ApiWriter(client, stores), recorder)
    verbs = planning.VERBS - {Preempt} if options.no_preemption else planning.VERBS
    controller = Controller(work_queue, Settings(verbs=verbs, slice_seconds=options.slice_seconds))
    audit = listeners.Audit(client, stores.view.jobs, stores.queues)
    reflectors = _reflectors(client, stores)
    work = [
        *(reflector.run() for reflector in reflectors.values()),
        audit.run(),
        watch_health.look({**reflectors, "dljobs and dlqueues": audit}, recorder, watch_health.own_pod()),
        recorder.run(),
        controller.run(),
        _freeze(stores),
    ]
    registry = listeners.registry(stores.view.jobs, stores.queues)
    await _beside(kopf.operator(registry=registry, clusterwide=True, standalone=True), work)


def _reflectors(client: Client, stores: Stores) -> dict[str, Reflector[Any]]:
    """What keeps the stores equal to the API server, by resource; kopf brings DLJobs and DLQueues."""
    kept = names.TAKEN_BACK
    return {
        "nodes": Reflector(client, paths.nodes(), Node, stores.view.nodes),
        "pods": Reflector(client, paths.pods(), Pod, stores.view.pods),
        "services": Reflector(client, paths.services(), Service, stores.services, label_selector=listeners.OURS),
        "podtemplates": Reflector(client, paths.podtemplates(), PodTemplate, stores.templates, label_selector=kept),
        "priorityclasses": Reflector(client, listeners.PRIORITY_CLASSES, PriorityClass, stores.priorities),
    }


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


def main() -> None:
    """Entry point of muster-operator."""
    options = arguments()
    logging.basicConfig(level=options.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("kopf").setLevel(logging.WARNING)
    with suppress(asyncio.CancelledError), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(options))


if __name__ == "__main__":
    main()
